package blobs_test

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

func (tr *tree) aside(name string) storage.AsideFile {
	tr.t.Helper()
	file, err := tr.Aside(tr.ctx, "batch", name)
	require.NoError(tr.t, err)
	return file
}

func TestSetAsideAndPutBack(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			tr := mustOpen(t, t.TempDir(), cfg)
			key, at := blob(1, "s/c")
			tr.publish(key, at, []byte("bytes"))
			require.NoError(t, tr.Settle(tr.ctx))
			require.Equal(t, storage.AsideFile{}, tr.aside(at))
			require.NoError(t, tr.NoteAside(tr.ctx, "batch", []byte("one\n")))
			require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
			require.Equal(t, storage.AsideFile{There: true, Size: 5}, tr.aside(at))
			require.NoDirExists(t, filepath.Join(tr.dir, "s"))
			require.ErrorIs(t, tr.SetAside(tr.ctx, "batch", at), storage.ErrNotFound)

			require.NoError(t, tr.PutBack(tr.ctx, "batch", at))
			got, err := os.ReadFile(filepath.Join(tr.dir, at))
			require.NoError(t, err)
			require.Equal(t, "bytes", string(got))
			require.ErrorIs(t, tr.PutBack(tr.ctx, "batch", at), storage.ErrNotFound)
			require.NoError(t, tr.Settle(tr.ctx))

			// Something else at the path stays.
			require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
			require.NoError(t, os.MkdirAll(filepath.Join(tr.dir, "s/c"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(tr.dir, at), []byte("else"), 0o600))
			require.ErrorIs(t, tr.PutBack(tr.ctx, "batch", at), fs.ErrExist)
			require.ErrorIs(t, tr.SetAside(tr.ctx, "batch", at), fs.ErrExist)
			require.Equal(t, storage.AsideFile{There: true, Size: 5}, tr.aside(at))

			batches, err := tr.Batches(tr.ctx)
			require.NoError(t, err)
			require.Equal(t, []string{"batch"}, batches)
			require.NoError(t, tr.Purge(tr.ctx, "batch"))
			require.Equal(t, storage.AsideFile{}, tr.aside(at))
			batches, err = tr.Batches(tr.ctx)
			require.NoError(t, err)
			require.Empty(t, batches)
		})
	}
}

// endingContext ends when it has been asked so many times whether it has.
type endingContext struct {
	context.Context
	left int
}

func (e *endingContext) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// A purge that is interrupted leaves a batch that still tells of its files; another one
// removes the rest.
func TestPurgeStopsWithItsContext(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{})
	require.NoError(t, tr.NoteAside(tr.ctx, "batch", []byte("one\n")))
	const files = 20
	for i := range files {
		key, at := blob(byte(i), "s")
		tr.publish(key, at, []byte("bytes"))
		require.NoError(t, tr.Settle(tr.ctx))
		require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
	}
	require.ErrorIs(t, tr.Purge(&endingContext{tr.ctx, files / 2}, "batch"), context.Canceled)
	left, err := filepath.Glob(filepath.Join(tr.dir, ".mediabolt/quarantine/batch/files/s/*"))
	require.NoError(t, err)
	require.NotEmpty(t, left)
	require.Less(t, len(left), files)
	notes, err := tr.Manifest(tr.ctx, "batch")
	require.NoError(t, err)
	require.Equal(t, "one\n", string(notes))
	require.NoError(t, tr.Purge(tr.ctx, "batch"))
	require.NoDirExists(t, filepath.Join(tr.dir, ".mediabolt/quarantine/batch"))
}

// What a crash leaves with two names can lose either.
func TestSetAsideCutShort(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{})
	key, at := blob(1, "s")
	tr.publish(key, at, []byte("bytes"))
	both := func() {
		kept := filepath.Join(tr.dir, ".mediabolt/quarantine/batch/files", at)
		require.NoError(t, os.MkdirAll(filepath.Dir(kept), 0o700))
		require.NoError(t, os.Link(filepath.Join(tr.dir, at), kept))
		require.Equal(t, storage.AsideFile{There: true, Size: 5, InTree: true}, tr.aside(at))
	}
	both()
	require.NoError(t, tr.ForgetAside(tr.ctx, "batch", at))
	require.Equal(t, storage.AsideFile{}, tr.aside(at))
	require.FileExists(t, filepath.Join(tr.dir, at))
	both()
	require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
	require.Equal(t, storage.AsideFile{There: true, Size: 5}, tr.aside(at))
	require.NoError(t, tr.ForgetAside(tr.ctx, "batch", at), "keeps what has no other name")
	require.True(t, tr.aside(at).There)
	require.NoError(t, os.MkdirAll(filepath.Join(tr.dir, "s"), 0o700))
	require.NoError(t, os.Link(filepath.Join(tr.dir, ".mediabolt/quarantine/batch/files", at), filepath.Join(tr.dir, at)))
	require.NoError(t, tr.PutBack(tr.ctx, "batch", at))
	require.False(t, tr.aside(at).There)
}

// Whatever is at a path can be moved, also what has no second name.
func TestSetAsideOfADirectory(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{})
	_, at := blob(1, "s")
	require.NoError(t, os.MkdirAll(filepath.Join(tr.dir, at, "below"), 0o700))
	require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
	require.Equal(t, storage.AsideFile{There: true}, tr.aside(at))
	require.NoError(t, tr.PutBack(tr.ctx, "batch", at))
	require.DirExists(t, filepath.Join(tr.dir, at, "below"))

	require.NoError(t, os.RemoveAll(filepath.Join(tr.dir, at)))
	err := os.Symlink("/etc/passwd", filepath.Join(tr.dir, at))
	if err != nil && runtime.GOOS == "windows" {
		t.Skip("making symbolic links needs a privilege on Windows")
	}
	require.NoError(t, err)
	require.NoError(t, tr.SetAside(tr.ctx, "batch", at))
	target, err := os.Readlink(filepath.Join(tr.dir, ".mediabolt/quarantine/batch/files", at))
	require.NoError(t, err)
	require.Equal(t, "/etc/passwd", target, "the link is moved, and not followed")
}

// No batch and no path leads out of the tree, or into the control directory.
func TestQuarantineIsContained(t *testing.T) {
	around := t.TempDir()
	dir := filepath.Join(around, "base")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(around, "secret"), []byte("x"), 0o600))
	tr := mustOpen(t, dir, blobs.Config{})
	for _, name := range []string{"", ".", "..", "../secret", "/etc/passwd", "a/../../secret", ".mediabolt", ".mediabolt/index.db", ".mediabolt/staging/0/x"} {
		require.ErrorIs(t, tr.SetAside(tr.ctx, "batch", name), storage.ErrInvalidQuery, name)
		require.ErrorIs(t, tr.PutBack(tr.ctx, "batch", name), storage.ErrInvalidQuery, name)
		require.ErrorIs(t, tr.ForgetAside(tr.ctx, "batch", name), storage.ErrInvalidQuery, name)
	}
	for _, batch := range []string{"", ".", "..", "../..", "a/b", `a\b`, "/", ".hidden"} {
		require.ErrorIs(t, tr.SetAside(tr.ctx, batch, "x"), storage.ErrInvalidQuery, batch)
		require.ErrorIs(t, tr.NoteAside(tr.ctx, batch, []byte("x\n")), storage.ErrInvalidQuery, batch)
		require.ErrorIs(t, tr.Purge(tr.ctx, batch), storage.ErrInvalidQuery, batch)
		_, err := tr.Manifest(tr.ctx, batch)
		require.ErrorIs(t, err, storage.ErrInvalidQuery, batch)
	}
	if err := os.Symlink(around, filepath.Join(dir, "out")); err == nil {
		require.Error(t, tr.SetAside(tr.ctx, "batch", path.Join("out", "secret")))
	}
	require.FileExists(t, filepath.Join(around, "secret"))
}

// A line that was cut short does not swallow the next.
func TestManifestAfterATornLine(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{})
	none, err := tr.Manifest(tr.ctx, "batch")
	require.NoError(t, err)
	require.Empty(t, none)
	require.NoError(t, tr.NoteAside(tr.ctx, "batch", []byte("one\n")))
	name := filepath.Join(tr.dir, ".mediabolt/quarantine/batch/manifest.jsonl")
	require.NoError(t, os.WriteFile(name, []byte("one\ntor"), 0o600))
	require.NoError(t, tr.NoteAside(tr.ctx, "batch", []byte("two\n")))
	got, err := tr.Manifest(tr.ctx, "batch")
	require.NoError(t, err)
	require.Equal(t, "one\ntor\ntwo\n", string(got))
}
