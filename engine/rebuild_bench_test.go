package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// BenchmarkRebuild rebuilds the index of stores of blobs of 1 KiB, most of one
// reference and some of two, in sessions of 100 references. The tree is in the
// kernel's memory as far as it fits, and what is written is synced. peak-MB is the most
// that the heap was seen to hold.
func BenchmarkRebuild(b *testing.B) {
	for _, refs := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("refs=%d", refs), func(b *testing.B) {
			config := engine.FileStoreConfig{BaseDir: b.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
			setup(b, config, func(f *engine.FileStore) {
				atOnce(b, 64, func(i int) error {
					for n := i; n < refs; n += 64 {
						data := bytesOf(1024, 1)
						copy(data, fmt.Sprint(n-n/6%2*(n%6/5))) // one of six repeats its predecessor, or nearly so
						_, err := f.Store(context.Background(), content(data), storage.MediaMetadata{
							SessionID: fmt.Sprint("s", n/100), UserID: fmt.Sprint("u", n/1000), Labels: map[string]string{"n": fmt.Sprint(n)},
						})
						if err != nil {
							return err
						}
					}
					return nil
				})
			})
			config.Sync = engine.SyncFull
			var taken time.Duration
			var peak uint64
			for b.Loop() {
				b.StopTimer()
				require.NoError(b, os.Remove(filepath.Join(config.BaseDir, ".mediabolt", "index.db")))
				runtime.GC()
				b.StartTimer()
				result, err := engine.Rebuild(context.Background(), config, engine.RebuildOptions{Progress: func(engine.RebuildProgress) {
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapInuse)
				}})
				require.NoError(b, err)
				require.EqualValues(b, refs, result.References)
				taken += result.Elapsed
			}
			b.ReportMetric(float64(refs)*float64(b.N)/taken.Seconds(), "refs/s")
			b.ReportMetric(float64(peak)/1e6, "peak-MB")
		})
	}
}
