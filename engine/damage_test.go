package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// harm does damage to the file of a blob.
type harm struct {
	name string
	do   func(t *testing.T, name string)
	kind storage.FindingKind // as Verify names it
	// gone says that the file counts as missing, so that the error is also
	// ErrNotFound; heals that storing the same bytes again repairs it.
	gone, heals bool
	// says is what the error must hold beside reference and path: what was
	// found and what was expected.
	says []string
}

// victimSize is the size of the blobs that are damaged, in bytes: several reads
// of a buffer.
const victimSize = 300 << 10

// victimBytes is what was stored.
func victimBytes() []byte { return bytes.Repeat([]byte("media bytes "), victimSize/12) }

func harms() []harm {
	size := int64(len(victimBytes()))
	crc := []string{"CRC-32C", "row says"}
	sizes := func(found int64) []string { return []string{fmt.Sprint(found, " bytes"), fmt.Sprint(size)} }
	link := func(target string) func(*testing.T, string) {
		return func(t *testing.T, name string) {
			require.NoError(t, os.Remove(name))
			if err := os.Symlink(target, name); err != nil {
				skip.Proof(t, "symbolic links: "+err.Error())
			}
		}
	}
	return []harm{
		{name: "first bit flipped", do: flip(0), kind: storage.FindingChecksum, says: crc},
		{name: "middle bit flipped", do: flip(size / 2), kind: storage.FindingChecksum, says: crc},
		{name: "last bit flipped", do: flip(size - 1), kind: storage.FindingChecksum, says: crc},
		{name: "one byte short", do: truncate(size - 1), kind: storage.FindingSize, heals: true, says: sizes(size - 1)},
		{name: "half of it", do: truncate(size / 2), kind: storage.FindingSize, heals: true, says: sizes(size / 2)},
		{name: "empty", do: truncate(0), kind: storage.FindingSize, heals: true, says: sizes(0)},
		{name: "one byte long", do: truncate(size + 1), kind: storage.FindingSize, heals: true, says: sizes(size + 1)},
		{name: "removed", do: func(t *testing.T, name string) { require.NoError(t, os.Remove(name)) },
			kind: storage.FindingMissing, gone: true, heals: true},
		{name: "an empty directory", do: func(t *testing.T, name string) {
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Mkdir(name, 0o700))
		}, kind: storage.FindingUnreadable, heals: true, says: []string{"no regular file"}},
		{name: "a directory with files", do: func(t *testing.T, name string) {
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Mkdir(name, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(name, "file"), nil, 0o600))
		}, kind: storage.FindingUnreadable, says: []string{"no regular file"}},
		{name: "a pipe", do: makePipe, kind: storage.FindingUnreadable, heals: true, says: []string{"no regular file"}},
		{name: "a dangling link", do: link("nowhere"), kind: storage.FindingMissing, gone: true, heals: true},
		{name: "a link to a device", do: link("/dev/zero"), kind: storage.FindingUnreadable, heals: true},
		{name: "a link to itself", do: func(t *testing.T, name string) { link(filepath.Base(name))(t, name) },
			kind: storage.FindingUnreadable, heals: true},
	}
}

func flip(offset int64) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		data[offset] ^= 0x10
		require.NoError(t, os.WriteFile(name, data, 0o600))
	}
}

func truncate(size int64) func(*testing.T, string) {
	return func(t *testing.T, name string) { require.NoError(t, os.Truncate(name, size)) }
}

func makePipe(t *testing.T, name string) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no pipes in directories")
	}
	require.NoError(t, os.Remove(name))
	if out, err := exec.Command("mkfifo", name).CombinedOutput(); err != nil {
		skip.Proof(t, fmt.Sprintf("mkfifo: %v: %s", err, out))
	}
}

// hangs is how long a call may take that must not wait for the other end of a
// pipe.
const hangs = 20 * time.Second

// promptly requires that fn, which must not wait for the other end of a pipe at
// name, returns.
func promptly(t *testing.T, name string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(hangs):
		// Both ends at once let go of whoever waits for one.
		pipe, err := os.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		<-done
		require.NoError(t, pipe.Close())
		require.Fail(t, "a call waits for the other end of a pipe")
	}
}

// readers are all the ways to read a blob. Each returns what it got before the
// error.
var readers = []struct {
	name string
	// random says that not a single byte may come out; the others may hand
	// over the beginning, never all.
	random bool
	read   func(f *engine.FileStore, ref *storage.StorageReference) ([]byte, error)
}{
	{"Retrieve", true, func(f *engine.FileStore, ref *storage.StorageReference) ([]byte, error) {
		got, err := f.Retrieve(context.Background(), ref)
		if got != nil {
			return []byte(got.Data), err
		}
		return nil, err
	}},
	{"Read", false, withBlob(func(b *engine.Blob) ([]byte, error) { return io.ReadAll(b) })},
	{"Read of all at once", false, withBlob(func(b *engine.Blob) ([]byte, error) {
		p := make([]byte, b.Size()+10)
		n, err := io.ReadFull(b, p)
		return p[:n], err
	})},
	{"WriteTo", false, withBlob(func(b *engine.Blob) ([]byte, error) {
		var w bytes.Buffer
		_, err := b.WriteTo(&w)
		return w.Bytes(), err
	})},
	{"ReadAt the beginning", true, withBlob(readAt(0))},
	{"ReadAt the middle", true, withBlob(readAt(victimSize / 2))},
	{"ReadAt the end", true, withBlob(readAt(victimSize - 100))},
	{"Seek and Read", true, withBlob(func(b *engine.Blob) ([]byte, error) {
		if _, err := b.Seek(-50, io.SeekEnd); err != nil {
			return nil, err
		}
		return io.ReadAll(b)
	})},
	{"Read, Seek and Read", false, withBlob(func(b *engine.Blob) ([]byte, error) {
		head := make([]byte, 100)
		if n, err := io.ReadFull(b, head); err != nil {
			return head[:n], err
		}
		if _, err := b.Seek(1000, io.SeekCurrent); err != nil {
			return head, err
		}
		rest, err := io.ReadAll(b)
		return append(head, rest...), err
	})},
}

func withBlob(read func(*engine.Blob) ([]byte, error)) func(*engine.FileStore, *storage.StorageReference) ([]byte, error) {
	return func(f *engine.FileStore, ref *storage.StorageReference) ([]byte, error) {
		b, err := f.Open(context.Background(), ref)
		if err != nil {
			return nil, err
		}
		defer func() { _ = b.Close() }() // was only read
		return read(b)
	}
}

func readAt(offset int64) func(*engine.Blob) ([]byte, error) {
	return func(b *engine.Blob) ([]byte, error) {
		p := make([]byte, 50)
		n, err := b.ReadAt(p, offset)
		return p[:n], err
	}
}

// requireRefused requires that no way of reading takes a damaged blob for good,
// and that every error tells what is wrong.
func requireRefused(t *testing.T, f *engine.FileStore, ref *storage.StorageReference, dir string, h *harm) {
	t.Helper()
	for _, r := range readers {
		got, err := r.read(f, ref)
		require.ErrorIs(t, err, storage.ErrCorrupted, r.name)
		require.Equal(t, h.gone, errors.Is(err, storage.ErrNotFound), "%s: %v", r.name, err)
		for _, word := range append([]string{ref.ID, ref.Metadata["path"], dir}, h.says...) {
			require.ErrorContains(t, err, word, r.name)
		}
		if r.random {
			require.Empty(t, got, r.name)
		} else {
			require.Less(t, len(got), victimSize, r.name)
		}
	}
}

// Every damage to a blob's file is noticed by every reader and by Verify, and a
// Store of the same bytes heals what it can notice without reading.
func TestDamagedBlob(t *testing.T) {
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f := mustOpen(t, config)
			a := mustStore(t, f, victimBytes(), someIDs)
			b := mustStore(t, f, victimBytes(), storage.MediaMetadata{SessionID: "elsewhere"})
			good := mustStore(t, f, small, someIDs)
			path := filepath.Join(config.BaseDir, a.Metadata["path"])
			// Staged names would stand in for a missing file.
			require.NoError(t, f.Checkpoint(context.Background()))
			h.do(t, path)

			requireRefused(t, f, a, config.BaseDir, &h)
			requireRefused(t, f, b, config.BaseDir, &h)
			require.Equal(t, small, mustRetrieve(t, f, good))
			requireFound(t, f, h.kind, a.Metadata["path"])
			require.NoError(t, f.Close())
			f = mustOpen(t, config)
			requireRefused(t, f, a, config.BaseDir, &h)

			if !h.heals {
				require.NoError(t, os.RemoveAll(path))
			}
			c := mustStore(t, f, victimBytes(), someIDs)
			for _, ref := range []*storage.StorageReference{a, b, c} {
				require.True(t, bytes.Equal(victimBytes(), mustRetrieve(t, f, ref)))
			}
			stats, err := f.Stats(context.Background())
			require.NoError(t, err)
			require.EqualValues(t, 1, stats.Healed)
			require.EqualValues(t, 4, stats.References)
			require.Empty(t, damage(t, f))
		})
	}
}

// requireFound requires that Verify finds one damage, of that kind and path.
func requireFound(t *testing.T, f *engine.FileStore, kind storage.FindingKind, path string) {
	t.Helper()
	var of []storage.Finding
	for _, finding := range damage(t, f) {
		require.NotEmpty(t, finding.Detail)
		if finding.Path == path {
			of = append(of, finding)
		}
	}
	require.Len(t, of, 1)
	require.Equal(t, kind, of[0].Kind, of[0].Detail)
}

// A Store that cannot heal, because a directory full of files is in the way of
// the blob, leaves nothing of itself.
func TestFailedHealingLeavesNothing(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	path := filepath.Join(config.BaseDir, ref.Metadata["path"])
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.MkdirAll(filepath.Join(path, "below"), 0o700))
	before := mustStats(t, f)

	_, err := f.Store(ctx, content(small), someIDs)
	require.Error(t, err)
	require.ErrorContains(t, err, ref.Metadata["path"])
	require.Equal(t, before, mustStats(t, f))
	require.Empty(t, leftInStaging(t, config.BaseDir))
	requireFound(t, f, storage.FindingUnreadable, ref.Metadata["path"])

	require.NoError(t, os.RemoveAll(path))
	mustStore(t, f, small, someIDs)
	require.Equal(t, counted(small, small), held(t, f))
}

// A damaged or missing file does not keep its references from being deleted,
// and leaves nothing when they are.
func TestDeleteOfADamagedBlob(t *testing.T) {
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			config := engine.FileStoreConfig{BaseDir: t.TempDir()}
			f := mustOpen(t, config)
			ref := mustStore(t, f, victimBytes(), someIDs)
			require.NoError(t, f.Checkpoint(context.Background()))
			path := filepath.Join(config.BaseDir, ref.Metadata["path"])
			h.do(t, path)
			require.NoError(t, f.Delete(context.Background(), ref))
			if !h.heals {
				// What is in the way of the removal is not in that of an opening.
				require.NoError(t, f.Close())
				f = mustOpen(t, config)
				_, err := f.Retrieve(context.Background(), ref)
				require.ErrorIs(t, err, storage.ErrNotFound)
				require.NoError(t, os.RemoveAll(path))
				require.NoError(t, f.Checkpoint(context.Background()))
			}
			require.Empty(t, damage(t, f))
			_, err := os.Stat(filepath.Join(config.BaseDir, someIDs.SessionID))
			require.ErrorIs(t, err, os.ErrNotExist, "its directories went with it")
		})
	}
}

// A file that shrinks or changes while a handle is open does not pass as good.
func TestDamageUnderAnOpenHandle(t *testing.T) {
	for _, h := range harms() {
		if h.kind != storage.FindingChecksum && h.kind != storage.FindingSize || h.name == "one byte long" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			for _, read := range []func(*engine.Blob) ([]byte, error){
				func(b *engine.Blob) ([]byte, error) { return io.ReadAll(b) },
				readAt(0), readAt(victimSize - 50),
			} {
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
				f := mustOpen(t, config)
				ref := mustStore(t, f, victimBytes(), someIDs)
				path := filepath.Join(config.BaseDir, ref.Metadata["path"])
				b, err := f.Open(context.Background(), ref)
				require.NoError(t, err)
				h.do(t, path)
				got, err := read(b)
				require.ErrorIs(t, err, storage.ErrCorrupted)
				require.ErrorContains(t, err, ref.ID)
				require.Less(t, len(got), victimSize)
				require.NoError(t, b.Close())
				require.NoError(t, os.WriteFile(path, victimBytes(), 0o600))
			}
		})
	}
}

// A blob that a person moved away and linked is not followed out of the store,
// and heals like one that is missing.
func TestBlobReplacedByALinkToItsBytes(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(context.Background()))
	path := filepath.Join(config.BaseDir, ref.Metadata["path"])
	outside := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Rename(path, outside))
	if err := os.Symlink(outside, path); err != nil {
		skip.Proof(t, "symbolic links: "+err.Error())
	}
	_, err := f.Retrieve(context.Background(), ref)
	require.ErrorIs(t, err, storage.ErrCorrupted, "nothing outside of the base directory is read")
	require.ErrorContains(t, err, ref.ID)
	requireFound(t, f, storage.FindingUnreadable, ref.Metadata["path"])

	again := mustStore(t, f, small, someIDs)
	require.Equal(t, small, mustRetrieve(t, f, ref))
	require.Equal(t, small, mustRetrieve(t, f, again))
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
	kept, err := os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, small, kept, "what the link led to is untouched")
}

// Damage to a sidecar is found by Verify, hurts no reader, and goes with the
// blob.
func TestDamagedSidecar(t *testing.T) {
	rewrite := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, name string) {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, change(data), 0o600))
		}
	}
	line := func(data []byte, n int) []byte { return bytes.SplitAfter(data, []byte("\n"))[n] }
	cases := []struct {
		name string
		do   func(*testing.T, string)
	}{
		{"removed", func(t *testing.T, name string) { require.NoError(t, os.Remove(name)) }},
		{"emptied", truncate(0)},
		{"zeros", rewrite(func(d []byte) []byte { return make([]byte, len(d)) })},
		{"last line cut short", rewrite(func(d []byte) []byte { return d[:len(d)-20] })},
		{"last line lost", rewrite(func(d []byte) []byte { return bytes.TrimSuffix(d, line(d, 3)) })},
		{"first line lost", rewrite(func(d []byte) []byte { return bytes.TrimPrefix(d, line(d, 0)) })},
		{"bit flipped in the first line", flip(40)},
		{"bit flipped in the second line", rewrite(func(d []byte) []byte { d[len(line(d, 0))+30] ^= 1; return d })},
		{"bit flipped in the tombstone", rewrite(func(d []byte) []byte { d[len(d)-30] ^= 1; return d })},
		{"a directory", func(t *testing.T, name string) {
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Mkdir(name, 0o700))
		}},
		{"a pipe", makePipe},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f := mustOpen(t, config)
			a := mustStore(t, f, small, someIDs)
			b := mustStore(t, f, small, someIDs)
			require.NoError(t, f.Delete(ctx, mustStore(t, f, small, someIDs)))
			require.NoError(t, f.Checkpoint(ctx))
			sidecar := a.Metadata["path"] + ".meta"
			c.do(t, filepath.Join(config.BaseDir, sidecar))

			requireFound(t, f, storage.FindingSidecar, sidecar)
			require.Equal(t, small, mustRetrieve(t, f, a))
			var further *storage.StorageReference
			promptly(t, filepath.Join(config.BaseDir, sidecar), func() {
				further, _ = f.Store(ctx, content(small), someIDs)
			})
			require.NotNil(t, further)
			require.Equal(t, small, mustRetrieve(t, f, further))
			require.NoError(t, f.Close())

			f = mustOpen(t, config)
			require.Equal(t, counted(small, small, small), held(t, f))
			for _, ref := range []*storage.StorageReference{a, b, further} {
				require.NoError(t, f.Delete(ctx, ref))
			}
			require.NoError(t, f.Checkpoint(ctx))
			entries, err := os.ReadDir(config.BaseDir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "only .mediabolt is left")
		})
	}
}

// A sidecar of another blob in the place of one's own is found out.
func TestSidecarOfAnotherBlob(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	a := mustStore(t, f, small, someIDs).Metadata["path"] + ".meta"
	b := mustStore(t, f, other, someIDs).Metadata["path"] + ".meta"
	require.NoError(t, f.WriteSidecars(t.Context()))
	mine, err := os.ReadFile(filepath.Join(config.BaseDir, a))
	require.NoError(t, err)
	others, err := os.ReadFile(filepath.Join(config.BaseDir, b))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(config.BaseDir, a), others, 0o600))
	requireFound(t, f, storage.FindingSidecar, a)
	require.Equal(t, counted(small, other), held(t, f))
	require.NoError(t, os.WriteFile(filepath.Join(config.BaseDir, a), mine, 0o600))
}
