package otel_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/observe/otel"
	"github.com/mediabolt/mediabolt/storage"
)

// observed is a store behind a Service, and what the SDK made of it.
type observed struct {
	service *otel.Service
	store   *engine.FileStore
	spans   *tracetest.SpanRecorder
	tracer  *sdktrace.TracerProvider
	reader  *sdkmetric.ManualReader
}

func open(t *testing.T) *observed {
	t.Helper()
	store, err := engine.Open(t.Context(), engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	o := &observed{store: store, spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	o.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(o.spans))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.reader))
	t.Cleanup(func() {
		require.NoError(t, errors.Join(o.tracer.Shutdown(context.Background()), meters.Shutdown(context.Background())))
	})
	o.service, err = otel.New(store, otel.Config{TracerProvider: o.tracer, MeterProvider: meters})
	require.NoError(t, err)
	return o
}

// secret is in every field that tells of somebody, and must not be told on.
const secret = "secret"

var metadata = storage.MediaMetadata{
	SessionID: secret + "-session", ConversationID: secret, RunID: secret, UserID: secret + "-user",
	Labels: map[string]string{secret: secret},
}

// live calls each method twice, once in vain, and returns the reference.
func (o *observed) live(t *testing.T, ctx context.Context) *storage.StorageReference {
	t.Helper()
	ref, err := o.service.Store(ctx, &storage.MediaContent{
		Type: "image", MimeType: "image/png", Data: base64.StdEncoding.EncodeToString([]byte(secret + " bytes")),
	}, metadata)
	require.NoError(t, err)
	content, err := o.service.Retrieve(ctx, ref)
	require.NoError(t, err)
	require.Equal(t, "image/png", content.MimeType)
	require.NoError(t, o.service.Delete(ctx, ref))

	_, err = o.service.Store(ctx, &storage.MediaContent{}, metadata)
	require.ErrorIs(t, err, storage.ErrInvalidMedia)
	_, err = o.service.Retrieve(ctx, ref)
	require.ErrorIs(t, err, storage.ErrNotFound)
	err = o.service.Delete(ctx, &storage.StorageReference{ID: secret + "/../passwd"})
	require.ErrorIs(t, err, storage.ErrInvalidRef)
	return ref
}

func TestSpans(t *testing.T) {
	o := open(t)
	ctx, parent := o.tracer.Tracer("test").Start(t.Context(), "request")
	ref := o.live(t, ctx)
	parent.End()
	id := attribute.String("mediabolt.reference.id", ref.ID)
	kind, mimeType := attribute.String("mediabolt.media.type", "image"), attribute.String("mediabolt.media.mime_type", "image/png")
	size := attribute.Int("mediabolt.media.size", len(secret+" bytes"))
	operation := func(name string) attribute.KeyValue { return attribute.String("mediabolt.operation", name) }
	class := func(name string) attribute.KeyValue { return attribute.String("error.type", name) }
	want := []struct {
		name       string
		status     sdktrace.Status
		attributes []attribute.KeyValue
	}{
		{"mediabolt.Store", sdktrace.Status{}, []attribute.KeyValue{operation("store"), id, kind, mimeType, size}},
		{"mediabolt.Retrieve", sdktrace.Status{}, []attribute.KeyValue{operation("retrieve"), id, kind, mimeType, size}},
		{"mediabolt.Delete", sdktrace.Status{}, []attribute.KeyValue{operation("delete"), id}},
		{"mediabolt.Store", sdktrace.Status{Code: codes.Error, Description: "invalid_media"}, []attribute.KeyValue{operation("store"), class("invalid_media")}},
		{"mediabolt.Retrieve", sdktrace.Status{Code: codes.Error, Description: "not_found"}, []attribute.KeyValue{operation("retrieve"), id, class("not_found")}},
		{"mediabolt.Delete", sdktrace.Status{Code: codes.Error, Description: "invalid_ref"}, []attribute.KeyValue{operation("delete"), class("invalid_ref")}},
	}
	spans := o.spans.Ended()
	require.Len(t, spans, len(want)+1)
	for i, w := range want {
		span := spans[i]
		require.Equal(t, w.name, span.Name())
		require.Equal(t, w.status, span.Status())
		require.ElementsMatch(t, w.attributes, span.Attributes())
		require.Equal(t, parent.SpanContext().SpanID(), span.Parent().SpanID())
		require.True(t, span.EndTime().After(span.StartTime()))
		require.Equal(t, "github.com/mediabolt/mediabolt/observe/otel", span.InstrumentationScope().Name)
		require.Empty(t, span.Events())
		require.NotContains(t, fmt.Sprint(span.Name(), span.Attributes(), span.Status()), secret)
	}
}

func TestMetrics(t *testing.T) {
	o := open(t)
	o.live(t, t.Context())
	var all metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(t.Context(), &all))
	require.Len(t, all.ScopeMetrics, 1)
	require.NotContains(t, fmt.Sprintf("%+v", all.ScopeMetrics), secret)
	points := map[string]float64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			require.Equal(t, "s", m.Unit)
			for _, p := range data.DataPoints {
				require.Positive(t, p.Sum)
				require.Less(t, p.Sum, 60.0)
				points[m.Name+" "+labels(p.Attributes)] += float64(p.Count)
			}
		case metricdata.Sum[int64]:
			require.Equal(t, "By", m.Unit)
			require.True(t, data.IsMonotonic)
			for _, p := range data.DataPoints {
				points[m.Name+" "+labels(p.Attributes)] += float64(p.Value)
			}
		}
	}
	size := float64(len(secret + " bytes"))
	require.Equal(t, map[string]float64{
		"mediabolt.operation.duration [store]": 1, "mediabolt.operation.duration [invalid_media store]": 1,
		"mediabolt.operation.duration [retrieve]": 1, "mediabolt.operation.duration [not_found retrieve]": 1,
		"mediabolt.operation.duration [delete]": 1, "mediabolt.operation.duration [delete invalid_ref]": 1,
		"mediabolt.io [store]": size, "mediabolt.io [retrieve]": size,
	}, points)
}

func labels(set attribute.Set) string {
	var values []string
	for _, kv := range set.ToSlice() {
		values = append(values, kv.Value.AsString())
	}
	slices.Sort(values)
	return fmt.Sprint(values)
}

// Sizes are of the bytes, whatever padding their base64 has.
func TestSizesOfPaddedContent(t *testing.T) {
	o := open(t)
	for n := range 5 {
		ref, err := o.service.Store(t.Context(), &storage.MediaContent{Data: "data:;base64," + base64.StdEncoding.EncodeToString(make([]byte, n))}, storage.MediaMetadata{})
		require.NoError(t, err)
		_, err = o.service.Retrieve(t.Context(), ref)
		require.NoError(t, err)
		spans := o.spans.Ended()
		for _, span := range spans[len(spans)-2:] {
			require.Contains(t, span.Attributes(), attribute.Int("mediabolt.media.size", n), span.Name())
		}
	}
}

// Without a configuration the program's own providers are used, which do nothing
// until they are set.
func TestDefaultProviders(t *testing.T) {
	o := open(t)
	service, err := otel.New(o.store, otel.Config{})
	require.NoError(t, err)
	_, err = service.Store(t.Context(), &storage.MediaContent{Data: "aGVsbG8="}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Empty(t, o.spans.Ended())
}

// brokenMeters makes no instruments.
type brokenMeters struct{ noop.MeterProvider }

type brokenMeter struct{ noop.Meter }

func (brokenMeters) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

func (brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errors.New("no histograms")
}

func TestNewReportsTheMeter(t *testing.T) {
	_, err := otel.New(open(t).store, otel.Config{MeterProvider: brokenMeters{}})
	require.ErrorContains(t, err, "no histograms")
}
