// Package otel traces and measures a storage.MediaStorageService with
// OpenTelemetry.
//
// Each call is a span, named after its method, in the trace of its context, and a
// point of the histogram mediabolt.operation.duration. Neither has anything of
// what was stored or of whom it belongs to: of the content there are kind, MIME
// type and size, of a failure its class.
package otel

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/mediabolt/mediabolt/storage"
)

// scope is the instrumentation scope of spans and metrics.
const scope = "github.com/mediabolt/mediabolt/observe/otel"

// Attributes of spans; metrics have operationKey and errorKey alone. Sizes are in
// bytes of the content, not of its base64.
const (
	operationKey = attribute.Key("mediabolt.operation") // store, retrieve or delete
	referenceKey = attribute.Key("mediabolt.reference.id")
	typeKey      = attribute.Key("mediabolt.media.type")
	mimeTypeKey  = attribute.Key("mediabolt.media.mime_type")
	sizeKey      = attribute.Key("mediabolt.media.size")
	errorKey     = attribute.Key("error.type") // storage.Class of the error
)

// Config says where spans and metrics go; the zero Config is where those of the
// program go.
type Config struct {
	TracerProvider trace.TracerProvider // nil: otel.GetTracerProvider()
	MeterProvider  metric.MeterProvider // nil: otel.GetMeterProvider()
}

// Service is a MediaStorageService that traces and measures another. It is as safe
// for concurrent use as that is.
type Service struct {
	next     storage.MediaStorageService
	tracer   trace.Tracer
	duration metric.Float64Histogram // seconds
	io       metric.Int64Counter     // bytes
}

var _ storage.MediaStorageService = (*Service)(nil)

// New returns next, traced and measured. Its error is the meter's, for an
// instrument that cannot be made.
func New(next storage.MediaStorageService, cfg Config) (*Service, error) {
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	s := &Service{next: next, tracer: cfg.TracerProvider.Tracer(scope)}
	meter := cfg.MeterProvider.Meter(scope)
	var err error
	s.duration, err = meter.Float64Histogram("mediabolt.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of calls, failed ones included."), metric.WithExplicitBucketBoundaries(bounds...))
	if err != nil {
		return nil, fmt.Errorf("instrument of durations: %w", err)
	}
	s.io, err = meter.Int64Counter("mediabolt.io", metric.WithUnit("By"),
		metric.WithDescription("Bytes of content that were stored or retrieved."))
	if err != nil {
		return nil, fmt.Errorf("instrument of bytes: %w", err)
	}
	return s, nil
}

// bounds of the durations, in seconds: from a read of a small blob that is in
// memory to a slow disk with a large one.
var bounds = []float64{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Store implements storage.MediaStorageService.
func (s *Service) Store(ctx context.Context, content *storage.MediaContent, metadata storage.MediaMetadata) (*storage.StorageReference, error) {
	ctx, end := s.begin(ctx, "store", "Store")
	ref, err := s.next.Store(ctx, content, metadata)
	if err != nil {
		end(0, err)
		return nil, err
	}
	size, _ := strconv.ParseInt(ref.Metadata["size"], 10, 64) // one that is missing counts nothing
	end(size, nil, referenceKey.String(ref.ID), typeKey.String(ref.Metadata["type"]), mimeTypeKey.String(ref.Metadata["mime_type"]))
	return ref, nil
}

// Retrieve implements storage.MediaStorageService.
func (s *Service) Retrieve(ctx context.Context, ref *storage.StorageReference) (*storage.MediaContent, error) {
	ctx, end := s.begin(ctx, "retrieve", "Retrieve")
	content, err := s.next.Retrieve(ctx, ref)
	if err != nil {
		end(0, err, idOf(ref)...)
		return nil, err
	}
	attributes := append(idOf(ref), typeKey.String(content.Type), mimeTypeKey.String(content.MimeType))
	end(decodedSize(content.Data), nil, attributes...)
	return content, nil
}

// Delete implements storage.MediaStorageService.
func (s *Service) Delete(ctx context.Context, ref *storage.StorageReference) error {
	ctx, end := s.begin(ctx, "delete", "Delete")
	err := s.next.Delete(ctx, ref)
	end(0, err, idOf(ref)...)
	return err
}

// begin begins a span. end ends it, with the content's size where there is one,
// and measures the call.
func (s *Service) begin(ctx context.Context, operation, method string) (context.Context, func(size int64, err error, attributes ...attribute.KeyValue)) {
	begun := time.Now()
	ctx, span := s.tracer.Start(ctx, "mediabolt."+method, trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithAttributes(operationKey.String(operation)))
	return ctx, func(size int64, err error, attributes ...attribute.KeyValue) {
		labels := []attribute.KeyValue{operationKey.String(operation)}
		if err != nil {
			// Its text names paths, and with them sessions and users.
			failed := errorKey.String(storage.Class(err))
			labels = append(labels, failed)
			attributes = append(attributes, failed)
			span.SetStatus(codes.Error, storage.Class(err))
		} else if operation != "delete" {
			attributes = append(attributes, sizeKey.Int64(size))
		}
		span.SetAttributes(attributes...)
		span.End()
		set := metric.WithAttributes(labels...)
		s.duration.Record(ctx, time.Since(begun).Seconds(), set)
		if size > 0 {
			s.io.Add(ctx, size, set)
		}
	}
}

// idOf is a reference's ID, if it is one: others may hold anything.
func idOf(ref *storage.StorageReference) []attribute.KeyValue {
	if ref == nil {
		return nil
	}
	id, err := storage.ParseID(ref.ID)
	if err != nil {
		return nil
	}
	return []attribute.KeyValue{referenceKey.String(id.String())}
}

// decodedSize is how many bytes standard base64 stands for.
func decodedSize(data string) int64 {
	return int64(base64.StdEncoding.DecodedLen(len(data)) - strings.Count(data[max(0, len(data)-2):], "="))
}
