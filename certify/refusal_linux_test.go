package certify_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify"
	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/storage"
)

// requireRoot skips where another user, or a mount, cannot be had.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	skip.Proof(t, "needs root")
}

// refused is the error of a certification that is refused, and has made nothing.
func refused(t *testing.T, dir string) error {
	t.Helper()
	_, err := certify.Run(context.Background(), certify.Options{Dir: dir, Victim: victim(honest, "")})
	require.Error(t, err)
	require.ErrorContains(t, err, dir)
	return err
}

func TestRunRefusesADiskWithoutSpace(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	err := refused(t, dir)
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.ErrorContains(t, err, fmt.Sprintf("%s has 16 MiB free, a certification needs 1024 MiB", dir))
	requireEmpty(t, dir)
}

// nobody is a user without privileges.
const nobody = 65534

// asNobody has this goroutine's thread look at files as another user does.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err := unix.SetfsuidRetUid(nobody)
	require.NoError(t, err)
	defer func() {
		_, err := unix.SetfsuidRetUid(0)
		require.NoError(t, err)
	}()
	do()
}

func TestRunRefusesWhereItMayNotWrite(t *testing.T) {
	requireRoot(t)
	closed, err := os.MkdirTemp("", "certify-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(closed)) })
	dir := filepath.Join(closed, "dir")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for _, c := range []struct {
		mode fs.FileMode
		want string
	}{{0o755, "make a scratch folder in "}, {0o700, "directory to certify: "}} {
		require.NoError(t, os.Chmod(closed, c.mode))
		asNobody(t, func() {
			err := refused(t, dir)
			require.ErrorIs(t, err, storage.ErrPermission)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.ErrorContains(t, err, c.want)
		})
	}
	requireEmpty(t, dir)
}
