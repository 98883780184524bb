package prometheus_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/observe/prometheus"
	"github.com/mediabolt/mediabolt/storage"
)

// open opens a store that is watched by a registered collector.
func open(t *testing.T) (*engine.FileStore, *client.Registry, string) {
	t.Helper()
	c := prometheus.NewCollector()
	dir := t.TempDir()
	store, err := engine.Open(t.Context(), engine.FileStoreConfig{
		BaseDir: dir, EnableDeduplication: true, EventListener: c.EventListener(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	c.Watch(store)
	registry := client.NewPedanticRegistry()
	registry.MustRegister(c)
	return store, registry, dir
}

func put(t *testing.T, store *engine.FileStore, data []byte) *storage.StorageReference {
	t.Helper()
	ref, err := store.StoreReader(t.Context(), bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
	require.NoError(t, err)
	return ref
}

// live does each thing that is counted, so that every metric has a series.
func live(t *testing.T, store *engine.FileStore, dir string) {
	t.Helper()
	ctx := t.Context()
	data := bytes.Repeat([]byte{7}, 1000)
	a, b := put(t, store, data), put(t, store, data)
	file := filepath.Join(dir, filepath.FromSlash(a.Metadata["path"]))
	require.NoError(t, os.Truncate(file, 10))
	_, err := store.Retrieve(ctx, a)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	c := put(t, store, data)
	_, err = store.Retrieve(ctx, a)
	require.NoError(t, err)
	blob, err := store.Open(ctx, a)
	require.NoError(t, err)
	require.NoError(t, blob.Close())
	for _, ref := range []*storage.StorageReference{a, b, c, c} {
		require.NoError(t, store.Delete(ctx, ref))
	}
	put(t, store, bytes.Repeat([]byte{8}, 500))
	_, err = store.Open(ctx, a)
	require.ErrorIs(t, err, storage.ErrNotFound)
}

func TestMetricsOfALife(t *testing.T) {
	store, registry, dir := open(t)
	live(t, store, dir)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP mediabolt_up Whether the store is open and its totals could be read.
# TYPE mediabolt_up gauge
mediabolt_up 1
# HELP mediabolt_references References in the store.
# TYPE mediabolt_references gauge
mediabolt_references 1
# HELP mediabolt_blobs Blobs in the store.
# TYPE mediabolt_blobs gauge
mediabolt_blobs 1
# HELP mediabolt_physical_bytes Sum of the sizes of all blobs.
# TYPE mediabolt_physical_bytes gauge
mediabolt_physical_bytes 500
# HELP mediabolt_stored_bytes_total Bytes of blobs that were new, or healed one.
# TYPE mediabolt_stored_bytes_total counter
mediabolt_stored_bytes_total 2500
# HELP mediabolt_shared_bytes_total Bytes that were brought and were there already.
# TYPE mediabolt_shared_bytes_total counter
mediabolt_shared_bytes_total 1000
# HELP mediabolt_freed_bytes_total Bytes of blobs that went with their last reference.
# TYPE mediabolt_freed_bytes_total counter
mediabolt_freed_bytes_total 1000
# HELP mediabolt_read_bytes_total Bytes of blobs that were retrieved or opened.
# TYPE mediabolt_read_bytes_total counter
mediabolt_read_bytes_total{operation="open"} 1000
mediabolt_read_bytes_total{operation="retrieve"} 1000
# HELP mediabolt_deleted_total References that were deleted.
# TYPE mediabolt_deleted_total counter
mediabolt_deleted_total 3
# HELP mediabolt_healed_total Blobs whose file was missing or cut short and came back.
# TYPE mediabolt_healed_total counter
mediabolt_healed_total 1
# HELP mediabolt_damage_total Damage that reads and verifications have met, by kind.
# TYPE mediabolt_damage_total counter
mediabolt_damage_total{kind="index"} 0
mediabolt_damage_total{kind="missing_file"} 0
mediabolt_damage_total{kind="wrong_checksum"} 0
mediabolt_damage_total{kind="wrong_size"} 1
# HELP mediabolt_failures_total Calls that failed, by class of the error.
# TYPE mediabolt_failures_total counter
mediabolt_failures_total{class="corrupted",operation="retrieve"} 1
mediabolt_failures_total{class="not_found",operation="open"} 1
`), "mediabolt_up", "mediabolt_references", "mediabolt_blobs", "mediabolt_physical_bytes", "mediabolt_stored_bytes_total",
		"mediabolt_shared_bytes_total", "mediabolt_freed_bytes_total", "mediabolt_read_bytes_total", "mediabolt_deleted_total",
		"mediabolt_healed_total", "mediabolt_damage_total", "mediabolt_failures_total"))

	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Every limit has a series, and counts what it refused.
func TestRefusals(t *testing.T) {
	c := prometheus.NewCollector()
	store, err := engine.Open(t.Context(), engine.FileStoreConfig{
		BaseDir: t.TempDir(), EventListener: c.EventListener(), Quota: engine.Quota{TotalBytes: 100},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	_, err = store.StoreReader(t.Context(), bytes.NewReader(make([]byte, 101)), storage.MediaInfo{}, storage.MediaMetadata{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	registry := client.NewPedanticRegistry()
	registry.MustRegister(c)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP mediabolt_failures_total Calls that failed, by class of the error.
# TYPE mediabolt_failures_total counter
mediabolt_failures_total{class="disk_space",operation="store"} 1
# HELP mediabolt_refusals_total Stores that a quota or MinFreeBytes has refused, by limit.
# TYPE mediabolt_refusals_total counter
mediabolt_refusals_total{limit="free"} 0
mediabolt_refusals_total{limit="session"} 0
mediabolt_refusals_total{limit="total"} 1
mediabolt_refusals_total{limit="user"} 0
`), "mediabolt_failures_total", "mediabolt_refusals_total"))
}

// The histogram says what Stats says.
func TestDurations(t *testing.T) {
	store, registry, dir := open(t)
	live(t, store, dir)
	stats, err := store.Stats(t.Context())
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	counts := map[string]uint64{}
	for _, family := range families {
		if family.GetName() != "mediabolt_operation_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			h := m.GetHistogram()
			require.Len(t, h.GetBucket(), engine.LatencyBounds)
			last := h.GetBucket()[engine.LatencyBounds-1]
			require.InDelta(t, 68.7, last.GetUpperBound(), 0.1)
			require.Equal(t, h.GetSampleCount(), last.GetCumulativeCount())
			counts[m.GetLabel()[0].GetValue()] = h.GetSampleCount()
			if m.GetLabel()[0].GetValue() == "retrieve" {
				require.Equal(t, stats.Latencies.Retrieve.Sum.Seconds(), h.GetSampleSum())
			}
		}
	}
	require.Positive(t, counts["commit"])
	delete(counts, "commit")
	require.Equal(t, map[string]uint64{"store": 3, "store_present": 1, "retrieve": 1, "open": 1, "delete": 4}, counts)
}

// Without a store, and with one that is closed, only what was counted is left.
func TestDown(t *testing.T) {
	down := `
# HELP mediabolt_up Whether the store is open and its totals could be read.
# TYPE mediabolt_up gauge
mediabolt_up 0
`
	c := prometheus.NewCollector()
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(down), "mediabolt_up", "mediabolt_references"))
	store, err := engine.Open(t.Context(), engine.FileStoreConfig{BaseDir: t.TempDir(), EventListener: c.EventListener()})
	require.NoError(t, err)
	c.Watch(store)
	put(t, store, []byte("x"))
	require.NoError(t, store.Close())
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(down+`
# HELP mediabolt_stored_bytes_total Bytes of blobs that were new, or healed one.
# TYPE mediabolt_stored_bytes_total counter
mediabolt_stored_bytes_total 1
`), "mediabolt_up", "mediabolt_references", "mediabolt_stored_bytes_total"))
}

func TestScrapesBesideWork(t *testing.T) {
	store, registry, _ := open(t)
	ctx := context.Background()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 20 {
				ref, err := store.StoreReader(ctx, strings.NewReader(fmt.Sprint(w, i)), storage.MediaInfo{}, storage.MediaMetadata{})
				if err == nil {
					err = store.Delete(ctx, ref)
				}
				if err != nil {
					t.Error(err)
				}
				if _, err := registry.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	n, err := testutil.GatherAndCount(registry, "mediabolt_deleted_total")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}
