package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Durable stores, with 1,000,000 references in the index: how long the longest takes
// while the index is compacted, and how long without, in turn.
func BenchmarkCompactPause(b *testing.B) {
	const refs = 1_000_000
	filled := b.TempDir()
	fillIndex(b, filled, refs)
	for _, writers := range []int{16, 64} {
		b.Run(fmt.Sprintf("refs=%d/writers=%d", refs, writers), func(b *testing.B) {
			dir := b.TempDir()
			require.NoError(b, os.CopyFS(dir, os.DirFS(filled)))
			f, err := engine.Open(b.Context(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, CompactAt: -1})
			require.NoError(b, err)
			stores := &timedStores{f: f, writers: writers}
			stores.during(b, func() { time.Sleep(5 * time.Second) }) // the segments of the log get their length
			var with, without latencies
			var pause time.Duration
			for b.Loop() {
				var done storage.Compaction
				during := stores.during(b, func() {
					done, err = f.Compact(context.Background(), engine.CompactOptions{})
				})
				require.NoError(b, err)
				alone := stores.during(b, func() { time.Sleep(done.Duration) })
				b.Logf("%d MiB to %d MiB in %s, pause %s; %s; without: %s", done.Before>>20, done.After>>20,
					done.Duration.Round(time.Millisecond), done.Pause.Round(time.Millisecond/10), during, alone)
				with, without, pause = append(with, during...), append(without, alone...), max(pause, done.Pause)
			}
			slices.Sort(with)
			slices.Sort(without)
			b.ReportMetric(float64(pause)/1e6, "ms-pause")
			b.ReportMetric(with.share(0.999), "ms-p99.9")
			b.ReportMetric(without.share(0.999), "ms-p99.9-without")
			b.ReportMetric(with.longest(), "ms-longest")
			b.ReportMetric(without.longest(), "ms-longest-without")
			stats, err := f.Stats(b.Context())
			require.NoError(b, err)
			require.EqualValues(b, refs+int(stores.made.Load()), stats.References)
			require.NoError(b, f.Close())
		})
	}
}

// fillIndex makes the index of a store that has references, without their files.
func fillIndex(b *testing.B, dir string, refs int) {
	b.Helper()
	control := filepath.Join(dir, ".mediabolt")
	require.NoError(b, os.MkdirAll(control, 0o700))
	root, err := os.OpenRoot(control)
	require.NoError(b, err)
	defer func() { require.NoError(b, root.Close()) }()
	ctx := context.Background()
	x, err := boltindex.Open(ctx, boltindex.Config{Root: root, Create: true, NoSync: true, Organization: storage.OrganizationBySession})
	require.NoError(b, err)
	const workers = 64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < refs; i += workers {
				if err := addRow(ctx, x, uint64(i+1)); err != nil {
					b.Errorf("add: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	for {
		debt, err := x.Debt(ctx)
		require.NoError(b, err)
		if len(debt.Mirrors)+len(debt.Unlinks) == 0 {
			break
		}
		require.NoError(b, x.Settle(ctx, debt))
	}
	require.NoError(b, x.Close())
}

func addRow(ctx context.Context, x *boltindex.Index, n uint64) error {
	var u storage.UUID
	binary.BigEndian.PutUint64(u[:], n<<16)
	u[6] = 0x70
	digest := storage.Digest{31: 1}
	binary.BigEndian.PutUint64(digest[:], n*0x9E3779B97F4A7C15) // spread over all keys
	key := storage.DigestKey(digest)
	_, err := x.Add(ctx, &storage.Addition{
		Ref: storage.RefRow{UUID: u, Blob: key, Type: "image", MimeType: "image/png", Metadata: storage.MediaMetadata{
			SessionID: fmt.Sprint("session-", n%1000), ConversationID: fmt.Sprint("conversation-", n%5000), UserID: fmt.Sprint("user-", n%300),
		}},
		Blob: storage.BlobRow{Key: key, Digest: digest, Path: fmt.Sprintf("session-%d/conversation-%d/%s-%s.png", n%1000, n%5000, digest.String()[:6], u),
			Size: 100_000, MimeType: "image/png", Organization: storage.OrganizationBySession},
		Staged: true,
	})
	return err
}

// timedStores stores media that no other call has stored.
type timedStores struct {
	f       *engine.FileStore
	writers int
	made    atomic.Int64
}

// latencies are in milliseconds, in order.
type latencies []float64

func (l latencies) longest() float64         { return l.share(1) }
func (l latencies) share(of float64) float64 { return l[int(of*float64(len(l)-1))] }

func (l latencies) String() string {
	return fmt.Sprintf("%d stores, p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, longest %.1f ms",
		len(l), l.share(0.5), l.share(0.99), l.share(0.999), l.longest())
}

// during stores by so many goroutines until do returns.
func (s *timedStores) during(b *testing.B, do func()) latencies {
	b.Helper()
	const size = 4096
	var mu sync.Mutex // guards all
	var all latencies
	var stop atomic.Bool
	var running sync.WaitGroup
	for range s.writers {
		running.Go(func() {
			var mine latencies
			data := make([]byte, size)
			for !stop.Load() {
				binary.BigEndian.PutUint64(data, uint64(s.made.Add(1)))
				begun := time.Now()
				_, err := s.f.StoreReader(context.Background(), bytes.NewReader(data), storage.MediaInfo{MimeType: "application/octet-stream"}, storage.MediaMetadata{SessionID: "s"})
				if err != nil {
					b.Errorf("store: %v", err)
					return
				}
				mine = append(mine, float64(time.Since(begun))/1e6)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	do()
	stop.Store(true)
	running.Wait()
	slices.Sort(all)
	return all
}
