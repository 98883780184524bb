package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// freeBytes is what is free below a directory, as df says.
func freeBytes(t testing.TB, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &s))
	return int64(s.Bavail) * int64(s.Bsize)
}

// indexRoom is what the index, sidecars and directories of these tests may take
// without being asked for: a log segment grows by less than that.
const indexRoom = 1 << 20

// A Store that would leave less than MinFreeBytes is refused and says the figures,
// whatever way the bytes come; once there is room it is not.
func TestMinFreeBytes(t *testing.T) {
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			ctx := context.Background()
			dir := disk.mount(t)
			h := new(heard)
			const least = 6 << 20
			config := engine.FileStoreConfig{
				BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true, MinFreeBytes: least, EventListener: h.listener(),
			}
			f := mustOpen(t, config)
			kept := mustStore(t, f, bytesOf(1<<20, 1), someIDs)
			large := mustStore(t, f, bytesOf(3<<20, 2), someIDs)
			require.NoError(t, f.Checkpoint(ctx))
			d := newFiller(t, dir)
			leave := func(n int64) {
				d.fill(t)
				d.free(t, n)
				time.Sleep(4 * engine.FigureAge) // a look before that was good for so long
			}
			leave(least + 1<<20 - 8<<10)
			before := mustStats(t, f)
			h.take()
			for name, r := range map[string]io.Reader{
				"in memory": bytes.NewReader(bytesOf(1<<20, 3)), "known length": bytes.NewReader(bytesOf(2<<20, 3)),
				"unknown length": streamOf(bytesOf(2<<20, 3)), "endless": endless{},
			} {
				_, err := f.StoreReader(ctx, r, storage.MediaInfo{}, someIDs)
				require.ErrorIs(t, err, storage.ErrDiskSpace, name)
				limit := new(engine.LimitError)
				require.ErrorAs(t, err, &limit, name)
				require.Equal(t, []any{engine.LimitFree, int64(least)}, []any{limit.Limit, limit.Bytes}, name)
				require.Less(t, limit.Used-limit.Asked, int64(least), name)
				require.ErrorContains(t, err, fmt.Sprintf("%d bytes are free, %d more were asked for, and MinFreeBytes keeps %d free", limit.Used, limit.Asked, least))
				requireNothingNew(t, f, config.BaseDir, before)
				events := h.take()
				require.Len(t, events["refused"], 1, name)
				require.Equal(t, engine.LimitFree, events["refused"][0].Limit)
			}
			// What is there needs no room, as a stream too.
			mustStore(t, f, bytesOf(1<<20, 1), someIDs)
			_, err := f.StoreReader(ctx, streamOf(bytesOf(3<<20, 2)), storage.MediaInfo{}, someIDs)
			require.NoError(t, err)
			mustStore(t, f, bytesOf(100<<10, 4), someIDs)

			// Below the minimum there is no Store at all, and everything else.
			leave(least / 2)
			for _, data := range [][]byte{bytesOf(1<<20, 1), []byte("x")} {
				_, err := f.Store(ctx, content(data), someIDs)
				require.ErrorIs(t, err, storage.ErrDiskSpace)
			}
			require.Len(t, mustRetrieve(t, f, kept), 1<<20)
			require.NoError(t, f.Delete(ctx, large))
			d.free(t, d.size)
			mustStore(t, f, bytesOf(1<<20, 5), someIDs)
		})
	}
}

// Many who store at once leave what is to stay free.
func TestMinFreeBytesByMany(t *testing.T) {
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			dir := disk.mount(t)
			const least = 4 << 20
			f := mustOpen(t, engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), MinFreeBytes: least, Sync: engine.SyncNone})
			var stored, refused atomic.Int64
			atOnce(t, 32, func(i int) error {
				for n := range 12 {
					data := bytesOf(100<<10, byte(i*12+n))
					var r io.Reader = bytes.NewReader(data)
					if i%4 == 0 {
						r = streamOf(bytes.Repeat(data, 12))
					}
					_, err := f.StoreReader(context.Background(), r, storage.MediaInfo{}, storage.MediaMetadata{})
					switch {
					case err == nil:
						stored.Add(1)
					case errors.As(err, new(*engine.LimitError)):
						refused.Add(1)
					default:
						return err
					}
				}
				return nil
			})
			require.Positive(t, stored.Load())
			require.Positive(t, refused.Load())
			require.Greater(t, freeBytes(t, dir), int64(least-indexRoom))
			// A bit more than one blob may be left above the minimum, no more.
			require.Less(t, freeBytes(t, dir), int64(least+2<<20))
		})
	}
}

func BenchmarkFreeSpace(b *testing.B) {
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: b.TempDir()})
	require.NoError(b, err)
	defer func() { require.NoError(b, f.Close()) }()
	read := f.FreeSpaceReader()
	for b.Loop() {
		require.NoError(b, read())
	}
}
