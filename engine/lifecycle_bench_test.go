//go:build unix

package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// benchBlobs is how many blobs all references of a benchmark share, so that what it
// measures is references and not files.
const benchBlobs = 16

// benchStore is a store whose index was filled without syncs, and without lines of
// sidecars; fill adds n references to it.
type benchStore struct {
	config FileStoreConfig
	rows   []storage.RefPair
}

func newBenchStore(b *testing.B) *benchStore {
	b.Helper()
	s := &benchStore{config: FileStoreConfig{BaseDir: b.TempDir(), EnableDeduplication: true, Sync: SyncNone}}
	s.use(b, func(f *FileStore) {
		for i := range benchBlobs {
			ref, err := f.Store(b.Context(), &storage.MediaContent{
				MimeType: "image/png", Data: base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "the bytes of blob %d", i)),
			}, storage.MediaMetadata{})
			require.NoError(b, err)
			id, err := storage.ParseID(ref.ID)
			require.NoError(b, err)
			var p storage.RefPair
			p.Ref, p.Blob, err = f.store.index.Ref(b.Context(), id)
			require.NoError(b, err)
			s.rows = append(s.rows, p)
		}
	})
	return s
}

func (s *benchStore) use(b *testing.B, fn func(*FileStore)) {
	b.Helper()
	f, err := Open(b.Context(), s.config)
	require.NoError(b, err)
	fn(f)
	require.NoError(b, f.Close())
}

// fill adds references as row says, from many goroutines for the sake of groups.
func (s *benchStore) fill(b *testing.B, f *FileStore, n int, row func(i int, ref *storage.RefRow)) {
	b.Helper()
	const fillers = 64
	ctx := context.Background()
	failed := make([]error, fillers)
	var group sync.WaitGroup
	for g := range fillers {
		group.Go(func() {
			for i := g; i < n && failed[g] == nil; i += fillers {
				p := s.rows[i%benchBlobs]
				if p.Ref.UUID, failed[g] = f.store.mint.next(); failed[g] != nil {
					return
				}
				row(i, &p.Ref)
				_, failed[g] = f.store.index.Add(ctx, &storage.Addition{Ref: p.Ref, Blob: p.Blob})
			}
		})
	}
	group.Wait()
	require.NoError(b, errors.Join(failed...))
	debt, err := f.store.index.Debt(ctx)
	require.NoError(b, err)
	require.NoError(b, f.store.index.Settle(ctx, debt))
}

// BenchmarkExpire ends a tenth of a store's references, all of them of a few blobs
// that stay, each durably.
func BenchmarkExpire(b *testing.B) {
	const all, due = 1_000_000, 100_000
	s := newBenchStore(b)
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	row := func(first time.Time) func(int, *storage.RefRow) {
		return func(i int, ref *storage.RefRow) {
			ref.Metadata.SessionID, ref.Metadata.Policy = fmt.Sprint("session ", i/1000), "retain-30days"
			ref.ExpiresAt = first.Add(time.Duration(i) * time.Millisecond)
		}
	}
	s.use(b, func(f *FileStore) { s.fill(b, f, all-due, row(start.AddDate(10, 0, 0))) })
	s.config.Sync, s.config.clock = SyncFull, func() time.Time { return start.AddDate(5, 0, 0) }
	var took, worked time.Duration
	s.use(b, func(f *FileStore) {
		for b.Loop() {
			b.StopTimer()
			s.fill(b, f, due, row(start))
			b.StartTimer()
			begun, before := time.Now(), processorTime(b)
			done, err := f.Expire(b.Context(), ExpireOptions{})
			took, worked = took+time.Since(begun), worked+processorTime(b)-before
			require.NoError(b, err)
			require.EqualValues(b, due, done.References)
		}
		stats, err := f.Stats(b.Context())
		require.NoError(b, err)
		require.EqualValues(b, all-due+benchBlobs, stats.References)
	})
	b.ReportMetric(float64(b.N*due)/took.Seconds(), "references/s")
	b.ReportMetric(float64(worked.Microseconds())/float64(b.N*due), "cpu-µs/reference")
}

// processorTime is what the process has used so far: on a machine that others use, what
// can be compared.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkListSession lists the references of one session in stores of different
// sizes.
func BenchmarkListSession(b *testing.B) {
	const listed = 1000
	for _, size := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := newBenchStore(b)
			s.use(b, func(f *FileStore) {
				s.fill(b, f, size, func(i int, ref *storage.RefRow) {
					ref.Metadata.SessionID = fmt.Sprint("session ", i/1000)
					if i%(size/listed) == 0 {
						ref.Metadata.SessionID = "listed"
					}
				})
			})
			s.use(b, func(f *FileStore) { // by now all rows are in bbolt
				begun := processorTime(b)
				for b.Loop() {
					n := 0
					for _, err := range f.List(b.Context(), Query{SessionID: "listed"}) {
						require.NoError(b, err)
						n++
					}
					require.Equal(b, listed, n)
				}
				b.ReportMetric(float64((processorTime(b)-begun).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		})
	}
}
