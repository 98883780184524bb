package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// archiveOf is an archive of a store that fill has filled.
func archiveOf(t *testing.T, fill func(f *engine.FileStore)) []byte {
	t.Helper()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	fill(f)
	return mustExport(t, f, engine.Query{})
}

// An import is held to each quota to the byte: what fits comes, what does not ends it.
func TestQuotasOfImports(t *testing.T) {
	ctx := context.Background()
	m := storage.MediaMetadata{UserID: "u", SessionID: "s"}
	for _, size := range []int{3000, 3 << 20} { // in memory, and streamed
		archive := archiveOf(t, func(f *engine.FileStore) {
			mustStore(t, f, bytesOf(size, 1), m)
			mustStore(t, f, bytesOf(size, 1), m)
		})
		for limit, quota := range map[engine.Limit]engine.Quota{
			engine.LimitTotal: {TotalBytes: int64(size) + 100}, engine.LimitUser: {UserBytes: 2*int64(size) + 100}, engine.LimitSession: {SessionBytes: 2*int64(size) + 100},
		} {
			t.Run(fmt.Sprintf("%s/%d", limit, size), func(t *testing.T) {
				h := new(heard)
				dir := t.TempDir()
				f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Quota: quota, EventListener: h.listener()})
				first := mustStore(t, f, bytesOf(101, 9), m)
				done, err := f.Import(ctx, bytes.NewReader(archive))
				require.ErrorIs(t, err, storage.ErrDiskSpace)
				limited := new(engine.LimitError)
				require.ErrorAs(t, err, &limited)
				require.Equal(t, limit, limited.Limit)
				require.Greater(t, limited.Used+limited.Asked, limited.Bytes)
				require.Empty(t, stagedFiles(t, f, dir))
				require.Equal(t, limit, h.take()["refused"][0].Limit)
				if limit == engine.LimitTotal {
					require.Zero(t, done.References)
				} else {
					require.Equal(t, int64(1), done.References, "what fits stays")
				}

				require.NoError(t, f.Delete(ctx, first))
				mustStore(t, f, bytesOf(100, 9), m)
				done, err = f.Import(ctx, bytes.NewReader(archive))
				require.NoError(t, err, "to the byte")
				require.Equal(t, int64(2), done.References+done.Present)

				_, err = f.Store(ctx, content([]byte("x")), m)
				require.ErrorIs(t, err, storage.ErrDiskSpace)
			})
		}
	}
}

// Bytes that are there already need no room, also where they are too many to be
// written beside what is there.
func TestImportOfPresentBytesIntoAFullStore(t *testing.T) {
	ctx := context.Background()
	const size = 3 << 20
	archive := archiveOf(t, func(f *engine.FileStore) {
		for i := range 3 {
			mustStore(t, f, bytesOf(size, 1), storage.MediaMetadata{MessageIndex: i})
		}
	})
	for _, dedup := range []bool{true, false} {
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Quota: engine.Quota{TotalBytes: size}}
		setup(t, config, func(f *engine.FileStore) { mustStore(t, f, bytesOf(size, 1), storage.MediaMetadata{}) })
		config.EnableDeduplication = dedup
		f := mustOpen(t, config)
		done, err := f.Import(ctx, bytes.NewReader(archive))
		require.NoError(t, err)
		require.Equal(t, engine.Imported{References: 3, Bytes: size}, done)
		require.Equal(t, int64(size), mustStats(t, f).PhysicalBytes)
	}
}

// Imports and stores at once never get a store over its quotas.
func TestQuotasOfImportsHammered(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var archives [8][]byte
	for n := range archives {
		archives[n] = archiveOf(t, func(f *engine.FileStore) {
			for i := range 30 {
				m := storage.MediaMetadata{UserID: fmt.Sprint("u", i%3), SessionID: fmt.Sprint("s", i%5)}
				mustStore(t, f, bytesOf(9000+100*n+i, byte(i)), m)
				mustStore(t, f, bytesOf(9000+100*n+i, byte(i)), m)
			}
		})
	}
	for _, quota := range []engine.Quota{{TotalBytes: 700_000}, {UserBytes: 500_000}, {SessionBytes: 300_000}} {
		h := &hammered{quota: quota, f: mustOpen(t, engine.FileStoreConfig{
			BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone, Quota: quota,
		})}
		stop := h.watch(t)
		atOnce(t, 2*len(archives), func(i int) error {
			var err error
			if i < len(archives) {
				_, err = h.f.Import(ctx, bytes.NewReader(archives[i]))
			} else {
				for n := 0; n < 30 && err == nil; n++ {
					_, err = h.f.Store(ctx, content(bytesOf(5000+100*i+n, byte(n))), storage.MediaMetadata{UserID: fmt.Sprint("u", n%3), SessionID: fmt.Sprint("s", n%5)})
				}
			}
			if errors.Is(err, storage.ErrDiskSpace) {
				h.full.Add(1)
				return nil
			}
			return err
		})
		stop()
		require.NoError(t, h.over())
		require.Positive(t, h.full.Load(), "nothing was refused")
	}
}
