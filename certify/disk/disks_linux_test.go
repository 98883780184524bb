package disk

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/skip"
)

// mustStart starts a server with one mounted disk, or skips the test.
func mustStart(t *testing.T, dir string) *Disks {
	t.Helper()
	kind := Filesystems()[0]
	for _, err := range []error{Missing(), kind.Missing()} {
		if err == nil {
			continue
		}
		skip.Proof(t, err.Error())
	}
	d, err := Start(dir)
	require.NoError(t, err)
	var made Made
	require.NoError(t, d.call("Make", kind.Name, &made))
	_, err = d.mount(made.Disk)
	require.NoError(t, err)
	require.Equal(t, 2, mountsBelow(t, dir))
	return d
}

func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	return strings.Count(string(table), " "+dir+"/")
}

// However a server ends, nothing stays mounted.
func TestNothingStaysMounted(t *testing.T) {
	t.Run("closed", func(t *testing.T) {
		dir := t.TempDir()
		d := mustStart(t, dir)
		require.NoError(t, d.Close())
		require.Zero(t, mountsBelow(t, dir))
	})
	t.Run("told to end", func(t *testing.T) {
		dir := t.TempDir()
		d := mustStart(t, dir)
		require.NoError(t, d.child.Process.Signal(unix.SIGTERM))
		require.NoError(t, d.Close())
		require.Zero(t, mountsBelow(t, dir))
	})
	t.Run("killed", func(t *testing.T) {
		dir := t.TempDir()
		d := mustStart(t, dir)
		require.NoError(t, d.child.Process.Kill())
		require.ErrorContains(t, d.Close(), "killed")
		require.Zero(t, mountsBelow(t, dir))
	})
}
