//go:build linux

package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// disks are small filesystems to fill, of 16 MiB each.
var disks = []struct {
	name  string
	mount func(t *testing.T) string
}{
	{"tmpfs", func(t *testing.T) string {
		return mount(t, "-t", "tmpfs", "-o", "size=16m", "tmpfs")
	}},
	{"ext4", func(t *testing.T) string {
		image := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(image, nil, 0o600))
		require.NoError(t, os.Truncate(image, 16<<20))
		run(t, "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image)
		return mount(t, "-o", "loop", image)
	}},
}

// filler is a file that takes what is left of a disk.
type filler struct {
	name string
	f    *os.File
	size int64
}

func newFiller(t *testing.T, dir string) *filler {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // its bytes mean nothing
	return &filler{name: name, f: f}
}

// fill takes everything, down to the last block.
func (d *filler) fill(t *testing.T) {
	t.Helper()
	for step := len(noise); step > 0; {
		n, err := d.f.WriteAt(noise[:step], d.size)
		d.size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			step /= 4
			continue
		}
		require.NoError(t, err)
	}
	require.NoError(t, d.f.Sync())
}

// free gives some bytes back.
func (d *filler) free(t *testing.T, n int64) {
	t.Helper()
	d.size = max(0, d.size-n)
	require.NoError(t, d.f.Truncate(d.size))
	require.NoError(t, d.f.Sync())
}

var noise = bytes.Repeat([]byte("filler  "), (256<<10)/8)

// blobOf is n bytes that no other number has.
func blobOf(number, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%8d", number), (n+7)/8)[:n]
}

// requireUnchanged requires that a Store which failed left nothing.
func requireUnchanged(t *testing.T, f *engine.FileStore, dir string, before engine.Stats) {
	t.Helper()
	require.NoError(t, f.Checkpoint(context.Background()))
	require.Empty(t, leftInStaging(t, dir))
	after := mustStats(t, f)
	before.IndexBytes = after.IndexBytes
	require.Equal(t, before, after)
}

func TestFullDisk(t *testing.T) {
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			ctx := context.Background()
			dir := disk.mount(t)
			config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true}
			f := mustOpen(t, config)
			var refs []*storage.StorageReference
			for i := range 20 {
				m := storage.MediaMetadata{SessionID: fmt.Sprint(i)}
				if i >= 15 {
					m.Policy = "2001-01-01T00:00:00Z"
				}
				refs = append(refs, mustStore(t, f, blobOf(i, 100<<10), m))
			}
			refs = append(refs, mustStore(t, f, blobOf(0, 100<<10), someIDs))
			require.NoError(t, f.Checkpoint(ctx))
			d := newFiller(t, dir)
			d.fill(t)

			requireNoRoom(t, f, config.BaseDir)
			requireReadable(t, f, refs)
			require.NoError(t, f.Close())
			f = mustOpen(t, config)
			requireReadable(t, f, refs)
			requireNoRoom(t, f, config.BaseDir)

			// Deletions and expiry need no room and make some.
			require.EqualValues(t, 5, mustExpire(t, f, engine.ExpireOptions{}).Blobs)
			for _, ref := range refs[10:] {
				require.NoError(t, f.Delete(ctx, ref), "again, of what has expired")
				_, err := f.Retrieve(ctx, ref)
				require.ErrorIs(t, err, storage.ErrNotFound)
			}
			requireReadable(t, f, refs[:10])
			require.NoError(t, f.Checkpoint(ctx))
			again := mustStore(t, f, blobOf(99, 200<<10), someIDs)
			require.NoError(t, f.Close())

			f = mustOpen(t, config)
			requireReadable(t, f, append(refs[:10:10], again))
			require.Empty(t, damage(t, f))
			d.free(t, d.size)
			requireReadable(t, f, []*storage.StorageReference{mustStore(t, f, blobOf(100, 3<<20), someIDs)})
		})
	}
}

// requireNoRoom requires that everything which needs room is ErrDiskSpace and
// leaves nothing.
func requireNoRoom(t *testing.T, f *engine.FileStore, dir string) {
	t.Helper()
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, blobOf(1002, 2<<20), 0o600))
	calls := map[string]func(storage.MediaMetadata) error{
		"small": func(m storage.MediaMetadata) error {
			_, err := f.Store(ctx, content([]byte("a few bytes that are new")), m)
			return err
		},
		"large": func(m storage.MediaMetadata) error {
			_, err := f.Store(ctx, content(blobOf(1000, 2<<20)), m)
			return err
		},
		"stream": func(m storage.MediaMetadata) error {
			_, err := f.StoreReader(ctx, bytes.NewReader(blobOf(1001, 3<<20)), storage.MediaInfo{}, m)
			return err
		},
		"file": func(m storage.MediaMetadata) error {
			_, err := f.Store(ctx, &storage.MediaContent{FilePath: file}, m)
			return err
		},
	}
	before := mustStats(t, f)
	for name, call := range calls {
		for _, m := range []storage.MediaMetadata{{SessionID: "1"}, {SessionID: "new", ConversationID: name}} {
			err := call(m)
			require.ErrorIs(t, err, storage.ErrDiskSpace, name)
			require.ErrorContains(t, err, dir, name)
			requireUnchanged(t, f, dir, before)
		}
	}
	_, err := os.Stat(filepath.Join(dir, "new"))
	require.ErrorIs(t, err, os.ErrNotExist, "directories made for a Store that failed")
}

// requireReadable requires that references are readable in every way.
func requireReadable(t *testing.T, f *engine.FileStore, refs []*storage.StorageReference) {
	t.Helper()
	ctx := context.Background()
	listed := map[string]bool{}
	for e, err := range f.List(ctx, engine.Query{}) {
		require.NoError(t, err)
		listed[e.Reference.ID] = true
	}
	for _, ref := range refs {
		data := mustRetrieve(t, f, ref)
		require.Equal(t, ref.Metadata["size"], fmt.Sprint(len(data)))
		b, err := f.Open(ctx, ref)
		require.NoError(t, err)
		read, err := io.ReadAll(b)
		require.NoError(t, err)
		require.NoError(t, b.Close())
		require.True(t, bytes.Equal(data, read))
		_, err = f.Stat(ctx, ref)
		require.NoError(t, err)
		require.True(t, listed[ref.ID])
	}
}

// A Store is tried with every number of free blocks until there are enough, so
// that the disk runs full at each of its steps. Each either happens or leaves
// nothing.
func TestDiskRunsFullAtEveryStep(t *testing.T) {
	const block = 4 << 10
	stores := map[string]func(f *engine.FileStore, n int) error{
		"new blob": func(f *engine.FileStore, n int) error {
			_, err := f.Store(context.Background(), content(blobOf(n, 3*block)),
				storage.MediaMetadata{SessionID: fmt.Sprint("session ", n), ConversationID: "c", RunID: "r", UserID: "u"})
			return err
		},
		"further reference": func(f *engine.FileStore, n int) error {
			_, err := f.Store(context.Background(), content([]byte("shared")), storage.MediaMetadata{
				SessionID: fmt.Sprint("session ", n), Labels: map[string]string{"long": string(blobOf(n, 3000))}})
			return err
		},
	}
	for _, disk := range disks {
		for name, store := range stores {
			t.Run(disk.name+"/"+name, func(t *testing.T) {
				ctx := context.Background()
				dir := disk.mount(t)
				config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true}
				f := mustOpen(t, config)
				mustStore(t, f, []byte("shared"), someIDs)
				require.NoError(t, f.Checkpoint(ctx))
				d := newFiller(t, dir)
				enough := 0
				for free := int64(0); enough < 5; free++ {
					require.Less(t, free, int64(200), "a Store needs no 200 blocks")
					d.fill(t)
					d.free(t, free*block)
					before := mustStats(t, f)
					if err := store(f, int(free)); err != nil {
						require.ErrorIs(t, err, storage.ErrDiskSpace)
						requireUnchanged(t, f, config.BaseDir, before)
						continue
					}
					enough++
					after, err := f.Stats(ctx)
					require.NoError(t, err)
					require.Equal(t, before.References+1, after.References)
					require.NoError(t, f.Close())
					f = mustOpen(t, config)
				}
				d.free(t, d.size)
				require.NoError(t, f.Close())
				requireRecoveredTree(t, config)
			})
		}
	}
}

// requireRecoveredTree requires that a store which has room again is whole.
func requireRecoveredTree(t *testing.T, config engine.FileStoreConfig) {
	t.Helper()
	f := mustOpen(t, config)
	require.NoError(t, f.Checkpoint(context.Background()))
	require.Empty(t, leftInStaging(t, config.BaseDir))
	require.Empty(t, damage(t, f))
	held(t, f)
}

// A store cannot be made on a full disk, and can be once there is room.
func TestStoreMadeOnAFullDisk(t *testing.T) {
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			dir := disk.mount(t)
			d := newFiller(t, dir)
			d.fill(t)
			config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true}
			_, err := engine.Open(context.Background(), config)
			require.ErrorIs(t, err, storage.ErrDiskSpace)
			require.ErrorContains(t, err, config.BaseDir)
			// Every size between nothing and enough.
			for free := int64(0); err != nil; free += 16 << 10 {
				require.ErrorIs(t, err, storage.ErrDiskSpace)
				require.Less(t, free, int64(4<<20))
				d.fill(t)
				d.free(t, free)
				var f *engine.FileStore
				if f, err = engine.Open(context.Background(), config); err == nil {
					require.NoError(t, f.Close())
				}
			}
			d.free(t, d.size)
			f := mustOpen(t, config)
			mustStore(t, f, small, someIDs)
			require.Equal(t, counted(small), held(t, f))
		})
	}
}

// A process that died with work under way opens its store on a disk that has
// run full since, reads and deletes, and finishes the work when there is room.
func TestRecoveryOnAFullDisk(t *testing.T) {
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			dir := disk.mount(t)
			config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true}
			want := busyStore(t, config)
			d := newFiller(t, dir)
			d.fill(t)
			f, err := engine.Open(context.Background(), config)
			require.NoError(t, err)
			require.Equal(t, counted(want...), held(t, f))
			require.NoError(t, f.Abandon())
			d.free(t, d.size)
			requireRecovered(t, config, want...)
		})
	}
}
