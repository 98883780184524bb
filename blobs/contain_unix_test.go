//go:build unix

package blobs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// outside is a directory beside a store, with a file that is to stay as it is.
func outside(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	t.Cleanup(func() {
		data, err := os.ReadFile(secret)
		require.NoError(t, err)
		require.Equal(t, "secret", string(data))
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "something was made outside")
	})
	return dir
}

// uses is every method that takes a path.
func uses(tr *tree, key storage.BlobKey, name string) map[string]func() error {
	b := row(1, "")
	b.Path = name
	return map[string]func() error{
		"Prepare": func() error {
			done, err := tr.Prepare(tr.ctx, name)
			if err == nil {
				done(false)
			}
			return err
		},
		"Publish": func() error { return tr.Publish(tr.ctx, key, name) },
		"Open": func() error {
			f, _, err := tr.Open(tr.ctx, key, name)
			if err == nil {
				err = f.Close()
			}
			return err
		},
		"Size":          func() error { _, err := tr.Size(tr.ctx, name); return err },
		"Remove":        func() error { return tr.Remove(tr.ctx, key, name) },
		"AppendSidecar": func() error { return tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true}) },
		"ReadSidecar":   func() error { _, err := tr.ReadSidecar(tr.ctx, name); return err },
	}
}

func TestPathsThatNoRowHas(t *testing.T) {
	out := outside(t)
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, _ := blob(1, "s/c")
	require.NoError(t, tr.Stage(tr.ctx, key, []byte("x")))
	for _, name := range []string{
		"", ".", "..", "/", "../x", "../../x", "s/../../x", "s/..", "s/./x", "./x", "s//x", "s/x/", "/etc/passwd",
		filepath.Join(out, "secret"), "s/\xff", strings.Repeat("../", 40) + "etc/passwd",
	} {
		for what, use := range uses(tr, key, name) {
			require.ErrorIs(t, use(), storage.ErrCorrupted, "%s %q", what, name)
		}
	}
	// The system refuses these.
	for _, name := range []string{"s/a\x00b", "\x00", strings.Repeat("x", 300), strings.Repeat("x/", 3000) + "x"} {
		methods := uses(tr, key, name)
		for _, what := range []string{"Publish", "Size", "AppendSidecar", "ReadSidecar"} {
			require.Error(t, methods[what](), "%s %.40q", what, name)
		}
	}
	require.NoError(t, tr.Discard(tr.ctx, key))
	tr.requireEmpty()
}

// A directory that is a symbolic link leading out is as good as none.
func TestDirectoriesThatLeadOutside(t *testing.T) {
	out := outside(t)
	for what, link := range map[string]string{"absolute": out, "relative": "../" + filepath.Base(out), "root": "/"} {
		dir := filepath.Join(filepath.Dir(out), "store-"+what)
		require.NoError(t, os.Mkdir(dir, 0o700))
		tr := mustOpen(t, dir, blobs.Config{NoSync: true})
		require.NoError(t, os.Symlink(link, filepath.Join(dir, "s")))
		key, _ := blob(1, "s")
		require.NoError(t, tr.Stage(tr.ctx, key, []byte("x")))
		for _, name := range []string{"s/secret", "s/c/secret", "s" + filepath.Join(out, "secret")} {
			for method, use := range uses(tr, key, name) {
				err := use()
				if method == "Open" && errors.Is(err, fs.ErrNotExist) {
					continue
				}
				require.Error(t, err, "%s: %s %s", what, method, name)
			}
		}
		require.Equal(t, []string{"s"}, tr.files(), "a walk does not follow it")
		target, err := os.Readlink(filepath.Join(dir, "s"))
		require.NoError(t, err)
		require.Equal(t, link, target)
	}
}

// A link in place of a blob or a sidecar is never read or written through, and
// goes as the file would.
func TestFilesThatLeadOutside(t *testing.T) {
	out := outside(t)
	secret := filepath.Join(out, "secret")
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	final := filepath.Join(tr.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(final), 0o700))
	for _, link := range []string{final, final + ".meta"} {
		require.NoError(t, os.Symlink(secret, link))
	}
	_, _, err := tr.Open(tr.ctx, key, name)
	require.Error(t, err)
	_, err = tr.Size(tr.ctx, name)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	_, err = tr.ReadSidecar(tr.ctx, name)
	require.Error(t, err)
	for _, first := range []bool{true, false} {
		require.Error(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: first}))
	}
	tr.publish(key, name, []byte("x"))
	info, err := os.Lstat(final)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular(), "the link was replaced, not followed")
	require.Equal(t, []byte("x"), tr.bytesOf(key, name))
	require.NoError(t, tr.Remove(tr.ctx, key, name))
	tr.requireEmpty()
}

// A link that dangles outside must not be made into a file there.
func TestLinksToNothingOutside(t *testing.T) {
	out := outside(t)
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	_, name := blob(1, "s/c")
	b := row(1, "s/c")
	sidecar := filepath.Join(tr.dir, name+".meta")
	require.NoError(t, os.MkdirAll(filepath.Dir(sidecar), 0o700))
	require.NoError(t, os.Symlink(filepath.Join(out, "new"), sidecar))
	require.Error(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true}))
}

func TestStagingThatLeadsOutside(t *testing.T) {
	out := outside(t)
	secret := filepath.Join(out, "secret")
	dir := t.TempDir()
	tr := mustOpen(t, dir, blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	require.NoError(t, tr.Stage(tr.ctx, key, []byte("x")))
	staged := filepath.Join(dir, tr.staged()[0].Path)
	require.NoError(t, tr.Discard(tr.ctx, key))

	// The staged name itself is a link.
	require.NoError(t, os.Symlink(secret, staged))
	_, _, err := tr.OpenStaged(tr.ctx, key)
	require.Error(t, err)
	_, _, err = tr.Open(tr.ctx, key, name)
	require.Error(t, err)
	tr.publish(key, name, []byte("x"))
	require.Equal(t, []byte("x"), tr.bytesOf(key, name))
	require.NoError(t, tr.Remove(tr.ctx, key, name))

	// Its directory is.
	require.NoError(t, os.Remove(filepath.Dir(staged)))
	require.NoError(t, os.Symlink(out, filepath.Dir(staged)))
	require.Error(t, tr.Stage(tr.ctx, key, []byte("x")))
	_, err = tr.Spool(tr.ctx, storage.UUID{15: key[len(key)-1]}, strings.NewReader("x"))
	require.Error(t, err)
	require.NoError(t, tr.Discard(tr.ctx, key), "the directory that was opened has no such file")
	require.NoError(t, os.Remove(filepath.Dir(staged)))

	// The control directory is, before the tree is opened.
	other := t.TempDir()
	require.NoError(t, os.Symlink(out, filepath.Join(other, blobs.ControlDir)))
	root, err := os.OpenRoot(other)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	_, err = blobs.Open(blobs.Config{Root: root})
	require.Error(t, err)
}

// A person may move a session elsewhere inside the base directory and leave a
// link.
func TestLinksInsideAreFollowed(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	tr.publish(key, name, []byte("x"))
	require.NoError(t, tr.Settle(tr.ctx))
	require.NoError(t, os.Rename(filepath.Join(tr.dir, "s"), filepath.Join(tr.dir, "moved")))
	require.NoError(t, os.Symlink("moved", filepath.Join(tr.dir, "s")))
	require.Equal(t, []byte("x"), tr.bytesOf(key, name))
	require.NoError(t, tr.Remove(tr.ctx, key, name))
	require.Equal(t, []string{"s"}, tr.files(), "the link is not ours to remove")
}

// Nothing that stands where a file should be makes a call wait.
func TestWhatIsNoRegularFile(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	final := filepath.Join(tr.dir, name)
	for what, put := range map[string]func(string) error{
		"pipe":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(final), 0o700))
		require.NoError(t, put(final))
		require.NoError(t, put(final+".meta"))
		calls := map[string]func() error{
			"Open":          func() error { _, _, err := tr.Open(tr.ctx, key, name); return err },
			"Size":          func() error { _, err := tr.Size(tr.ctx, name); return err },
			"ReadSidecar":   func() error { _, err := tr.ReadSidecar(tr.ctx, name); return err },
			"AppendSidecar": func() error { return tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true}) },
		}
		for method, call := range calls {
			done := start(call)
			select {
			case err := <-done:
				require.Error(t, err, "%s of a %s", method, what)
				require.NotErrorIs(t, err, storage.ErrNotFound, "%s of a %s", method, what)
			case <-time.After(5 * time.Second):
				t.Errorf("%s of a %s waits", method, what)
				unblock(t, final+".meta")
				<-done
			}
		}
		require.NoError(t, os.RemoveAll(filepath.Join(tr.dir, "s")))
	}
}

// start runs call beside the test.
func start(call func() error) chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// unblock opens the other end of a pipe that somebody waits to write to.
func unblock(t testing.TB, pipe string) {
	t.Helper()
	f, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
