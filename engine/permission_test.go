//go:build unix

package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// nobody is a user without privileges.
const nobody = 65534

// unprivileged runs a test where permissions mean something: root has the test
// run again by a process of another user. It returns true in that one, and
// wherever the caller is not root.
func unprivileged(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	dir, err := os.MkdirTemp("", "unprivileged")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chown(dir, nobody, nobody))
	// The test binary lies where only its own user may go.
	self, err := os.Executable()
	require.NoError(t, err)
	binary := filepath.Join(dir, "engine.test")
	require.NoError(t, copyProgram(self, binary))
	child := exec.Command(binary, "-test.v", "-test.timeout=45s", "-test.run=^"+t.Name()+"$")
	child.Dir = dir
	child.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		skip.Proof(t, "run as another user: "+err.Error())
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name()+" ")
	return false
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Chmod(to, 0o755))
}

// chmod changes a mode until the test ends.
func chmod(t *testing.T, name string, mode fs.FileMode) (restore func()) {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(name, mode))
	restore = func() {
		if err := os.Chmod(name, info.Mode().Perm()); !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
	}
	t.Cleanup(restore)
	return restore
}

// requireDenied requires an ErrPermission that names all of words.
func requireDenied(t *testing.T, err error, words ...string) {
	t.Helper()
	require.ErrorIs(t, err, storage.ErrPermission)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NotErrorIs(t, err, storage.ErrNotFound)
	require.NotErrorIs(t, err, storage.ErrCorrupted)
	for _, word := range words {
		require.ErrorContains(t, err, word)
	}
}

func TestUnreadableBlob(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	path := filepath.Join(config.BaseDir, ref.Metadata["path"])
	for _, locked := range []string{path, filepath.Dir(path)} {
		restore := chmod(t, locked, 0)
		_, err := f.Retrieve(ctx, ref)
		requireDenied(t, err, ref.ID, ref.Metadata["path"], config.BaseDir)
		_, err = f.Open(ctx, ref)
		requireDenied(t, err, ref.ID, ref.Metadata["path"], config.BaseDir)
		_, err = f.Stat(ctx, ref)
		require.NoError(t, err, "the index is readable")
		restore()
		require.Equal(t, small, mustRetrieve(t, f, ref))
	}
	restore := chmod(t, path, 0)
	requireFound(t, f, storage.FindingUnreadable, ref.Metadata["path"])
	restore()
}

func TestStoreIntoAReadOnlyDirectory(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	before, err := f.Stats(ctx)
	require.NoError(t, err)
	session := filepath.Join(config.BaseDir, someIDs.SessionID)
	elsewhere := someIDs
	elsewhere.ConversationID = "another conversation"
	staging := filepath.Join(config.BaseDir, ".mediabolt", "staging")
	cases := []struct {
		name string
		dirs []string
		m    storage.MediaMetadata
	}{
		{"directory of the blob", []string{filepath.Join(session, someIDs.ConversationID)}, someIDs},
		{"directory above a new one", []string{session}, elsewhere},
		{"directory that may not be entered", []string{session}, someIDs},
		{"staging", allOf(t, staging), someIDs},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var restore []func()
			for _, dir := range c.dirs {
				mode := fs.FileMode(0o500)
				if strings.Contains(c.name, "entered") {
					mode = 0
				}
				restore = append(restore, chmod(t, dir, mode))
			}
			_, err := f.Store(ctx, content(other), c.m)
			requireDenied(t, err, config.BaseDir)
			_, err = f.StoreReader(ctx, bytes.NewReader(large), storage.MediaInfo{}, c.m)
			requireDenied(t, err, config.BaseDir)
			after, err := f.Stats(ctx)
			require.NoError(t, err)
			require.Equal(t, before.References, after.References)
			require.Equal(t, before.PhysicalBytes, after.PhysicalBytes)
			require.Empty(t, leftInStaging(t, config.BaseDir))
			for _, fn := range restore {
				fn()
			}
			require.Empty(t, damage(t, f))
			again := mustStore(t, f, other, c.m)
			require.Equal(t, counted(small, other), held(t, f))
			require.NoError(t, f.Delete(ctx, again))
			require.NoError(t, f.Checkpoint(ctx))
		})
	}
	require.Equal(t, small, mustRetrieve(t, f, ref))
}

// allOf is the directories in a directory.
func allOf(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

// A further reference to a blob needs no new file, so a directory that has
// become read-only does not refuse it.
func TestFurtherReferenceInAReadOnlyDirectory(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(context.Background()))
	path := filepath.Join(config.BaseDir, ref.Metadata["path"])
	restoreFile, restoreDir := chmod(t, path+".meta", 0o400), chmod(t, filepath.Dir(path), 0o500)
	mustStore(t, f, small, someIDs)
	require.NoError(t, f.Delete(context.Background(), ref))
	require.Equal(t, counted(small), held(t, f))
	require.NoError(t, f.Close())

	// The lines that the sidecar lacks stay owed, also over an opening.
	f = mustOpen(t, config)
	require.Equal(t, counted(small), held(t, f))
	restoreDir()
	restoreFile()
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	require.Empty(t, damage(t, f))
}

func TestDeleteInAReadOnlyDirectory(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	ctx := context.Background()
	for _, later := range []string{"checkpoint", "opening"} {
		t.Run(later, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f := mustOpen(t, config)
			ref := mustStore(t, f, small, someIDs)
			require.NoError(t, f.Checkpoint(ctx))
			path := filepath.Join(config.BaseDir, ref.Metadata["path"])
			restore := chmod(t, filepath.Dir(path), 0o500)
			require.NoError(t, f.Delete(ctx, ref))
			_, err := f.Retrieve(ctx, ref)
			require.ErrorIs(t, err, storage.ErrNotFound)
			require.FileExists(t, path)
			var kinds []storage.FindingKind
			for _, finding := range damage(t, f) {
				kinds = append(kinds, finding.Kind)
			}
			require.Contains(t, kinds, storage.FindingUnlink)
			if later == "opening" {
				// As long as the directory stays as it is, the store opens.
				require.NoError(t, f.Close())
				f = mustOpen(t, config)
				require.FileExists(t, path)
				mustStore(t, f, other, storage.MediaMetadata{SessionID: "elsewhere"})
				require.NoError(t, f.Close())
			}
			restore()
			if later == "opening" {
				f = mustOpen(t, config)
			} else {
				require.NoError(t, f.Checkpoint(ctx))
			}
			require.NoFileExists(t, path)
			require.NoFileExists(t, path+".meta")
			require.Empty(t, damage(t, f))
		})
	}
}

func TestBaseDirectoryWithoutPermission(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	ctx := context.Background()
	t.Run("new store in a read-only directory", func(t *testing.T) {
		parent := t.TempDir()
		config := engine.FileStoreConfig{BaseDir: filepath.Join(parent, "store"), EnableDeduplication: true}
		restore := chmod(t, parent, 0o500)
		_, err := engine.Open(ctx, config)
		requireDenied(t, err, config.BaseDir)
		restore()
		require.NoDirExists(t, config.BaseDir)
		mustStore(t, mustOpen(t, config), small, someIDs)
	})
	t.Run("new store in a read-only base directory", func(t *testing.T) {
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
		restore := chmod(t, config.BaseDir, 0o500)
		_, err := engine.Open(ctx, config)
		requireDenied(t, err, config.BaseDir)
		restore()
		mustStore(t, mustOpen(t, config), small, someIDs)
	})
	for _, mode := range []fs.FileMode{0, 0o400} {
		t.Run("store that may not be entered, mode "+mode.String(), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
			restore := chmod(t, config.BaseDir, mode)
			_, err := engine.Open(ctx, config)
			requireDenied(t, err, config.BaseDir)
			restore()
			require.Equal(t, counted(small), held(t, mustOpen(t, config)))
		})
	}
	t.Run("unreadable index", func(t *testing.T) {
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
		setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
		index := filepath.Join(config.BaseDir, ".mediabolt", "index.db")
		restore := chmod(t, index, 0)
		_, err := engine.Open(ctx, config)
		requireDenied(t, err, index)
		restore()
		require.Equal(t, counted(small), held(t, mustOpen(t, config)))
	})
}

// run runs a program that needs root, or skips the test.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		skip.Proof(t, name+" needs root")
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		skip.Proof(t, name+" "+strings.Join(args, " ")+": "+err.Error()+": "+string(out))
	}
}

// mount mounts a filesystem until the test ends, and returns where.
func mount(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	mountAt(t, dir, args...)
	return dir
}

func mountAt(t *testing.T, dir string, args ...string) {
	t.Helper()
	run(t, "mount", append(args, dir)...)
	t.Cleanup(func() {
		out, err := exec.Command("umount", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
}

// A store on a read-only filesystem is refused, and so is a new one.
func TestReadOnlyFilesystem(t *testing.T) {
	below := t.TempDir()
	config := engine.FileStoreConfig{BaseDir: filepath.Join(below, "store"), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
	before := treeOf(t, below)
	above := mount(t, "--bind", below)
	run(t, "mount", "-o", "remount,bind,ro", above)
	for _, name := range []string{"store", "new", "new/store"} {
		readOnly := config
		readOnly.BaseDir = filepath.Join(above, name)
		_, err := engine.Open(context.Background(), readOnly)
		requireDenied(t, err, readOnly.BaseDir)
		require.ErrorIs(t, err, syscall.EROFS)
	}
	require.Equal(t, before, treeOf(t, below))
	requireRecovered(t, config, small)
}

// A part of the tree on a read-only filesystem can be read, and the rest of the
// store goes on.
func TestReadOnlyFilesystemInTheTree(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	kept := mustStore(t, f, small, someIDs)
	gone := mustStore(t, f, other, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	before := mustStats(t, f)
	session := filepath.Join(config.BaseDir, someIDs.SessionID)
	mountAt(t, session, "--bind", session)
	run(t, "mount", "-o", "remount,bind,ro", session)

	m := storage.MediaMetadata{SessionID: someIDs.SessionID, ConversationID: "another conversation"}
	_, err := f.Store(ctx, content(shared), m)
	requireDenied(t, err, config.BaseDir)
	require.ErrorIs(t, err, syscall.EROFS)
	_, err = f.StoreReader(ctx, bytes.NewReader(large), storage.MediaInfo{}, m)
	requireDenied(t, err, config.BaseDir)
	require.Empty(t, leftInStaging(t, config.BaseDir))
	require.Equal(t, before, mustStats(t, f))

	require.Equal(t, small, mustRetrieve(t, f, kept))
	require.NoError(t, f.Delete(ctx, gone))
	mustStore(t, f, small, storage.MediaMetadata{SessionID: "elsewhere"})
	require.Equal(t, counted(small, small), held(t, f))
	run(t, "mount", "-o", "remount,bind,rw", session)
	require.NoError(t, f.Checkpoint(ctx))
	require.NoFileExists(t, filepath.Join(config.BaseDir, gone.Metadata["path"]))
}
