//go:build unix

package engine_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// An unwritable destination ends a backup with the sentinel that says so.
func TestBackupWhereNothingCanBeWritten(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	f, dir := mixedStore(t)
	dest := t.TempDir()
	require.NoError(t, os.Chmod(dest, 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(dest, 0o700)) })
	for _, d := range []string{dest, filepath.Join(dest, "below")} {
		_, err := f.Backup(context.Background(), d, engine.BackupOptions{})
		require.ErrorIs(t, err, storage.ErrPermission)
		require.ErrorIs(t, err, fs.ErrPermission)
		requireSentinel(t, err, dir)
	}
}
