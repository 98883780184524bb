package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// configs are the ways to sync; every one keeps the same promises of a process
// that is not killed.
var configs = map[string]blobs.Config{"syncfs": {}, "a sync per file": {NoSyncFS: true}, "no sync": {NoSync: true}}

// tree is a tree and its base directory.
type tree struct {
	*blobs.Tree
	t   testing.TB
	ctx context.Context
	dir string
}

// mustOpen opens the tree in dir until the test ends.
func mustOpen(t testing.TB, dir string, cfg blobs.Config) *tree {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	cfg.Root = root
	opened, err := blobs.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, opened.Close())
		require.NoError(t, root.Close())
	})
	return &tree{opened, t, context.Background(), dir}
}

// blob is the nth blob: its key, and a path in dir.
func blob(n byte, dir string) (storage.BlobKey, string) {
	id := storage.ID{Hash: [3]byte{n}, UUID: storage.UUID{0: n, 15: n}}
	return storage.DigestKey(storage.Digest{0: n, 31: n}), path.Join(dir, blobs.FileName(id, "image/png"))
}

// row is that blob's row, as far as a sidecar tells of it.
func row(n byte, dir string) storage.BlobRow {
	key, name := blob(n, dir)
	digest, _ := key.Digest()
	return storage.BlobRow{Key: key, Path: name, Digest: digest, Organization: storage.OrganizationBySession}
}

// publish takes bytes all the way to a path.
func (tr *tree) publish(key storage.BlobKey, name string, data []byte) {
	tr.t.Helper()
	require.NoError(tr.t, tr.tryPublish(key, name, data))
}

func (tr *tree) tryPublish(key storage.BlobKey, name string, data []byte) error {
	if err := tr.Stage(tr.ctx, key, data); err != nil {
		return err
	}
	if err := tr.Sync(tr.ctx, key); err != nil {
		return err
	}
	done, err := tr.Prepare(tr.ctx, name)
	if err != nil {
		return err
	}
	err = tr.Publish(tr.ctx, key, name)
	done(err == nil)
	return err
}

// bytesOf reads a blob through the tree.
func (tr *tree) bytesOf(key storage.BlobKey, name string) []byte {
	tr.t.Helper()
	f, size, err := tr.Open(tr.ctx, key, name)
	require.NoError(tr.t, err)
	data, err := io.ReadAll(f)
	require.NoError(tr.t, err)
	require.Len(tr.t, data, int(size))
	tail := make([]byte, min(size, 2))
	_, err = f.ReadAt(tail, size-int64(len(tail)))
	require.NoError(tr.t, err)
	require.Equal(tr.t, data[len(data)-len(tail):], tail)
	require.NoError(tr.t, f.Close())
	return data
}

func (tr *tree) staged() []storage.StagedFile {
	tr.t.Helper()
	list, err := tr.Staged(tr.ctx)
	require.NoError(tr.t, err)
	return list
}

// files are the paths of all files in the tree.
func (tr *tree) files() []string {
	tr.t.Helper()
	var list []string
	for file, err := range tr.Files(tr.ctx) {
		require.NoError(tr.t, err)
		list = append(list, file.Path)
	}
	return list
}

// requireEmpty requires that nothing is left but the staging directories.
func (tr *tree) requireEmpty() {
	tr.t.Helper()
	require.Empty(tr.t, tr.staged())
	entries, err := os.ReadDir(tr.dir)
	require.NoError(tr.t, err)
	require.Len(tr.t, entries, 1, "%v", entries)
	require.Equal(tr.t, blobs.ControlDir, entries[0].Name())
}

func TestLifeOfABlob(t *testing.T) {
	for how, cfg := range configs {
		t.Run(how, func(t *testing.T) {
			tr := mustOpen(t, t.TempDir(), cfg)
			key, name := blob(1, "s/c")
			data := []byte("some bytes")

			require.NoError(t, tr.Stage(tr.ctx, key, data))
			_, err := tr.Size(tr.ctx, name)
			require.ErrorIs(t, err, storage.ErrNotFound)
			require.Equal(t, data, tr.bytesOf(key, name), "staged, not published")
			require.NoError(t, tr.Sync(tr.ctx, key))
			done, err := tr.Prepare(tr.ctx, name)
			require.NoError(t, err)
			require.NoError(t, tr.Publish(tr.ctx, key, name))
			done(true)

			onDisk, err := os.ReadFile(filepath.Join(tr.dir, name))
			require.NoError(t, err)
			require.Equal(t, data, onDisk)
			require.Equal(t, data, tr.bytesOf(key, name))
			size, err := tr.Size(tr.ctx, name)
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), size)
			staged := tr.staged()
			require.Len(t, staged, 1, "its durable name stays until the final one is durable")
			require.Equal(t, key, staged[0].Key)
			require.True(t, staged[0].InUse)

			require.NoError(t, tr.Settle(tr.ctx))
			require.Empty(t, tr.staged())
			_, _, err = tr.OpenStaged(tr.ctx, key)
			require.ErrorIs(t, err, storage.ErrNotFound)
			require.Equal(t, data, tr.bytesOf(key, name))

			b := row(1, "s/c")
			require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true, Ref: &storage.RefRow{UUID: storage.UUID{1}}}))
			require.NoError(t, tr.Settle(tr.ctx))
			require.Equal(t, []string{name, name + ".meta"}, tr.files())
			require.NoError(t, tr.Remove(tr.ctx, key, name))
			require.NoError(t, tr.Remove(tr.ctx, key, name), "a second time")
			require.NoError(t, tr.Settle(tr.ctx))
			tr.requireEmpty()
			_, _, err = tr.Open(tr.ctx, key, name)
			require.ErrorIs(t, err, storage.ErrNotFound)
		})
	}
}

// Between the publishing and the next Settle a blob has two names; a removal
// takes both, and a blob of that key can be staged anew.
func TestRemoveBeforeSettle(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSyncFS: true})
	key, name := blob(1, "s/c")
	tr.publish(key, name, []byte("first"))
	require.NoError(t, tr.Remove(tr.ctx, key, name))
	tr.requireEmpty()

	tr.publish(key, name, []byte("second"))
	_, other := blob(2, "s/other")
	require.NoError(t, tr.Stage(tr.ctx, key, []byte("third")))
	require.NoError(t, tr.Remove(tr.ctx, key, name), "the blob of before")
	require.Equal(t, []byte("third"), tr.bytesOf(key, other), "what is staged by now stays")
	require.NoError(t, tr.Settle(tr.ctx))
	require.Equal(t, []byte("third"), tr.bytesOf(key, other))
	require.NoError(t, tr.Discard(tr.ctx, key))
	require.NoError(t, tr.Discard(tr.ctx, key), "a second time")
	tr.requireEmpty()
}

func TestStageReplaces(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	// As a crash leaves it, and as an earlier call of this process does.
	for _, data := range []string{"longer than the next one", "next", ""} {
		require.NoError(t, tr.Stage(tr.ctx, key, []byte(data)))
		require.Equal(t, data, string(tr.bytesOf(key, name)))
		require.NoError(t, tr.Sync(tr.ctx, key))
	}
	require.NoError(t, tr.Discard(tr.ctx, key))
	require.Error(t, tr.Sync(tr.ctx, key), "there is nothing to sync")
	tr.requireEmpty()
}

func TestPublishReplacesADamagedFile(t *testing.T) {
	for how, cfg := range configs {
		t.Run(how, func(t *testing.T) {
			tr := mustOpen(t, t.TempDir(), cfg)
			key, name := blob(1, "s/c")
			tr.publish(key, name, []byte("good bytes"))
			require.NoError(t, tr.Settle(tr.ctx))
			old, _, err := tr.Open(tr.ctx, key, name)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(filepath.Join(tr.dir, name), 3))

			tr.publish(key, name, []byte("good bytes"))
			require.Equal(t, []byte("good bytes"), tr.bytesOf(key, name))
			left, err := io.ReadAll(old)
			require.NoError(t, err)
			require.Equal(t, "goo", string(left), "a reader keeps the file that it opened")
			require.NoError(t, old.Close())
			require.NoError(t, tr.Settle(tr.ctx))
			require.Equal(t, []string{name}, tr.files())
			require.Empty(t, tr.staged())
		})
	}
}

func TestPublishWithoutItsParts(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	done, err := tr.Prepare(tr.ctx, name)
	require.NoError(t, err)
	require.ErrorIs(t, tr.Publish(tr.ctx, key, name), fs.ErrNotExist, "nothing is staged")
	done(false)
	tr.requireEmpty()

	require.NoError(t, tr.Stage(tr.ctx, key, []byte("x")))
	require.ErrorIs(t, tr.Publish(tr.ctx, key, name), fs.ErrNotExist, "no directory was prepared")
	require.Equal(t, []byte("x"), tr.bytesOf(key, name), "after an error it is still staged")
	require.NoError(t, tr.Discard(tr.ctx, key))
	tr.requireEmpty()
}

// A tree that is opened again, as after a crash, knows nothing of what is in
// staging, finds it, and can finish what was under way.
func TestReopened(t *testing.T) {
	dir := t.TempDir()
	first := mustOpen(t, dir, blobs.Config{})
	published, publishedName := blob(1, "s/c")
	staged, stagedName := blob(2, "s/c")
	first.publish(published, publishedName, []byte("published"))
	require.NoError(t, first.Stage(first.ctx, staged, []byte("staged")))
	spool, err := first.Spool(first.ctx, storage.UUID{15: 3}, bytes.NewReader([]byte("spooled")))
	require.NoError(t, err)
	foreign := filepath.Join(dir, path.Dir(spool), "foreign")
	require.NoError(t, os.WriteFile(foreign, []byte("?"), 0o600))
	misplaced := filepath.Join(dir, ".mediabolt/staging/0", staged.String()[:63]+"11")
	require.NoError(t, os.WriteFile(misplaced, nil, 0o600))

	tr := mustOpen(t, dir, blobs.Config{})
	list := tr.staged()
	require.Len(t, list, 5)
	found := map[storage.BlobKey]int{}
	for _, f := range list {
		require.False(t, f.InUse)
		require.Equal(t, f.Path == spool, f.Spool)
		found[f.Key]++
	}
	require.Equal(t, map[storage.BlobKey]int{published: 1, staged: 1, "": 3}, found)
	tr.Published(published, publishedName)
	done, err := tr.Prepare(tr.ctx, stagedName)
	require.NoError(t, err)
	require.NoError(t, tr.Publish(tr.ctx, staged, stagedName))
	done(true)
	require.NoError(t, tr.Settle(tr.ctx))
	require.Equal(t, []byte("staged"), tr.bytesOf(staged, stagedName))
	require.Equal(t, []byte("published"), tr.bytesOf(published, publishedName))
	require.Len(t, tr.staged(), 3)
}

func TestUsed(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	used, err := blobs.Used(root)
	require.NoError(t, err)
	require.False(t, used)
	mustOpen(t, dir, blobs.Config{})
	used, err = blobs.Used(root)
	require.NoError(t, err)
	require.True(t, used)
}

func TestSpool(t *testing.T) {
	for how, cfg := range configs {
		t.Run(how, func(t *testing.T) {
			tr := mustOpen(t, t.TempDir(), cfg)
			key, name := blob(1, "s/c")
			data := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
			spool, err := tr.Spool(tr.ctx, storage.UUID{15: 1}, iotest.HalfReader(bytes.NewReader(data)))
			require.NoError(t, err)
			staged := tr.staged()
			require.Len(t, staged, 1)
			require.Equal(t, storage.StagedFile{Path: spool, Size: int64(len(data)), Spool: true, InUse: true}, staged[0])
			_, _, err = tr.Open(tr.ctx, key, name)
			require.ErrorIs(t, err, storage.ErrNotFound, "no reader looks there")

			require.NoError(t, tr.Claim(tr.ctx, spool, key))
			require.NoError(t, tr.Sync(tr.ctx, key))
			done, err := tr.Prepare(tr.ctx, name)
			require.NoError(t, err)
			require.NoError(t, tr.Publish(tr.ctx, key, name))
			done(true)
			require.NoError(t, tr.Settle(tr.ctx))
			require.Equal(t, data, tr.bytesOf(key, name))
			require.Empty(t, tr.staged())

			spool, err = tr.Spool(tr.ctx, storage.UUID{15: 2}, bytes.NewReader(data))
			require.NoError(t, err)
			require.NoError(t, tr.Drop(tr.ctx, spool))
			require.Empty(t, tr.staged())
			require.Error(t, tr.Claim(tr.ctx, spool, key), "it was dropped")
			require.Equal(t, data, tr.bytesOf(key, name))
		})
	}
}

// lender lends the pieces of a stream.
type lender struct {
	t      *testing.T
	pieces [][]byte
}

func (l *lender) Read([]byte) (int, error) {
	l.t.Error("what can be lent was copied")
	return 0, io.EOF
}

func (l *lender) Next(buf []byte) ([]byte, error) {
	if len(l.pieces) == 0 {
		return nil, io.EOF
	}
	piece := l.pieces[0]
	require.LessOrEqual(l.t, len(piece), len(buf))
	l.pieces = l.pieces[1:]
	return piece, nil
}

func TestSpoolOfWhatIsLent(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	r := &lender{t, [][]byte{[]byte("one "), []byte("two "), []byte("three")}}
	spool, err := tr.Spool(tr.ctx, storage.UUID{15: 1}, r)
	require.NoError(t, err)
	key, _ := blob(1, "s/c")
	require.NoError(t, tr.Claim(tr.ctx, spool, key))
	f, size, err := tr.OpenStaged(tr.ctx, key)
	require.NoError(t, err)
	got, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	require.NoError(t, errors.Join(err, f.Close()))
	require.Equal(t, "one two three", string(got))

	ctx, cancel := context.WithCancel(tr.ctx)
	cancel()
	_, err = tr.Spool(ctx, storage.UUID{15: 2}, &lender{t, [][]byte{[]byte("one")}})
	require.ErrorIs(t, err, context.Canceled)
}

// Whatever ends a stream early, nothing of it stays.
func TestSpoolThatFails(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	broken := errors.New("the sender hung up")
	_, err := tr.Spool(tr.ctx, storage.UUID{15: 1}, io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	tr.requireEmpty()

	ctx, cancel := context.WithCancel(tr.ctx)
	_, err = tr.Spool(ctx, storage.UUID{15: 2}, io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), cancelReader(cancel), bytes.NewReader(make([]byte, 1<<20))))
	require.ErrorIs(t, err, context.Canceled)
	tr.requireEmpty()

	spool, err := tr.Spool(tr.ctx, storage.UUID{15: 3}, bytes.NewReader(nil))
	require.NoError(t, err)
	_, err = tr.Spool(tr.ctx, storage.UUID{15: 3}, bytes.NewReader(nil))
	require.ErrorIs(t, err, fs.ErrExist, "one UUID is one stream")
	require.Len(t, tr.staged(), 1)
	require.NoError(t, tr.Drop(tr.ctx, spool))
	tr.requireEmpty()
}

// cancelReader is an empty stream that cancels when it is read.
type cancelReader context.CancelFunc

func (c cancelReader) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

func TestCancelledContexts(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	tr.publish(key, name, []byte("x"))
	other, otherName := blob(2, "s2/c")
	ctx, cancel := context.WithCancel(tr.ctx)
	cancel()
	calls := map[string]func() error{
		"Stage":         func() error { return tr.Stage(ctx, other, []byte("y")) },
		"Spool":         func() error { _, err := tr.Spool(ctx, storage.UUID{15: 1}, bytes.NewReader(nil)); return err },
		"Claim":         func() error { return tr.Claim(ctx, "x", other) },
		"Drop":          func() error { return tr.Drop(ctx, "x") },
		"Sync":          func() error { return tr.Sync(ctx, key) },
		"Discard":       func() error { return tr.Discard(ctx, key) },
		"Prepare":       func() error { _, err := tr.Prepare(ctx, otherName); return err },
		"Publish":       func() error { return tr.Publish(ctx, key, otherName) },
		"Open":          func() error { _, _, err := tr.Open(ctx, key, name); return err },
		"OpenStaged":    func() error { _, _, err := tr.OpenStaged(ctx, key); return err },
		"Size":          func() error { _, err := tr.Size(ctx, name); return err },
		"Remove":        func() error { return tr.Remove(ctx, key, name) },
		"AppendSidecar": func() error { return tr.AppendSidecar(ctx, &b, storage.SidecarLine{First: true}) },
		"ReadSidecar":   func() error { _, err := tr.ReadSidecar(ctx, name); return err },
		"Settle":        func() error { return tr.Settle(ctx) },
		"Staged":        func() error { _, err := tr.Staged(ctx); return err },
		"Files": func() error {
			for _, err := range tr.Files(ctx) {
				return err
			}
			return nil
		},
	}
	for what, call := range calls {
		require.ErrorIs(t, call(), context.Canceled, what)
	}
	require.Equal(t, []string{name}, tr.files())
	require.Len(t, tr.staged(), 1)
	require.Equal(t, []byte("x"), tr.bytesOf(key, name))
}

// Directories go when they are empty, while others publish into them: a
// prepared directory stays.
func TestPruningBesidePublishing(t *testing.T) {
	const goroutines, rounds = 16, 60
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	var all sync.WaitGroup
	for g := range byte(goroutines) {
		all.Go(func() {
			for i := range rounds {
				dir := fmt.Sprintf("s/c%d", (int(g)+i)%3)
				key, name := blob(g, dir)
				if err := tr.tryPublish(key, name, []byte{g}); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				if i%5 == 0 {
					done, err := tr.Prepare(tr.ctx, name)
					if err != nil {
						t.Errorf("prepare: %v", err)
						return
					}
					done(false) // as one who found that the blob is there
				}
				if i%7 == 0 {
					if err := tr.Settle(tr.ctx); err != nil {
						t.Errorf("settle: %v", err)
					}
				}
				if _, err := os.Stat(filepath.Join(tr.dir, name)); err != nil {
					t.Errorf("published: %v", err)
				}
				if err := tr.Remove(tr.ctx, key, name); err != nil {
					t.Errorf("remove: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, tr.Settle(tr.ctx))
	tr.requireEmpty()
}

// What a living process has in staging is never taken for what a crash left.
func TestStagedTellsWhatIsInUse(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range byte(8) {
		wg.Go(func() {
			key, name := blob(n, "s/c")
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := tr.Stage(tr.ctx, key, []byte("x"))
				if n%2 == 0 {
					err = errors.Join(err, tr.Discard(tr.ctx, key))
				} else {
					done, e := tr.Prepare(tr.ctx, name)
					err = errors.Join(err, e, tr.Sync(tr.ctx, key), tr.Publish(tr.ctx, key, name))
					done(true)
					err = errors.Join(err, tr.Settle(tr.ctx), tr.Remove(tr.ctx, key, name))
				}
				if err != nil {
					t.Errorf("blob %d: %v", n, err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for range 2000 {
		staged, err := tr.Staged(tr.ctx)
		require.NoError(t, err)
		for _, file := range staged {
			require.True(t, file.InUse, file.Path)
		}
	}
}

// A prepared directory stays, also when all that was in it goes.
func TestPreparedDirectoryStays(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "r/s/c")
	other, otherName := blob(2, "r/s/c")
	tr.publish(key, name, []byte("x"))
	done, err := tr.Prepare(tr.ctx, otherName)
	require.NoError(t, err)
	require.NoError(t, tr.Remove(tr.ctx, key, name))
	require.NoError(t, tr.Stage(tr.ctx, other, []byte("y")))
	require.NoError(t, tr.Publish(tr.ctx, other, otherName))
	done(true)
	require.Equal(t, []byte("y"), tr.bytesOf(other, otherName))
	require.NoError(t, os.WriteFile(filepath.Join(tr.dir, "r", "note.txt"), nil, 0o600))
	require.NoError(t, tr.Remove(tr.ctx, other, otherName))
	require.Equal(t, []string{"r/note.txt"}, tr.files(), "what is not ours keeps its directory")
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		cfg       blobs.Config
		file, dir fs.FileMode
	}{
		{blobs.Config{}, 0o600, 0o700},
		{blobs.Config{FileMode: 0o640, DirMode: 0o750}, 0o640, 0o750},
	} {
		tr := mustOpen(t, t.TempDir(), c.cfg)
		key, name := blob(1, "s/c")
		b := row(1, "s/c")
		tr.publish(key, name, []byte("x"))
		require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true}))
		err := filepath.WalkDir(tr.dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == tr.dir {
				return err
			}
			info, err := e.Info()
			require.NoError(t, err)
			want := c.file
			if e.IsDir() {
				want = c.dir
			}
			require.Equal(t, want, info.Mode().Perm(), p)
			return nil
		})
		require.NoError(t, err)
	}
}

func TestFiles(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	tr.publish(key, name, []byte("x"))
	require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true}))
	require.NoError(t, os.WriteFile(filepath.Join(tr.dir, "s", "holiday.png"), nil, 0o600))
	id := storage.ID{Hash: [3]byte{1}, UUID: storage.UUID{0: 1, 15: 1}}
	var got []storage.TreeFile
	for f, err := range tr.Files(tr.ctx) {
		require.NoError(t, err)
		got = append(got, f)
	}
	require.Equal(t, []storage.TreeFile{
		{Path: name, Ours: true, Blob: name, ID: id},
		{Path: name + ".meta", Ours: true, Sidecar: true, Blob: name, ID: id},
		{Path: "s/holiday.png"},
	}, got)
	for range tr.Files(tr.ctx) {
		break // a walk may end early
	}
}
