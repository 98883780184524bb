package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A disk that fills up ends a backup, a restore and an import with ErrDiskSpace, and
// leaves the store as it was; with more room they go on where they stopped.
func TestBackupToAFullDisk(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	for i := range 30 {
		mustStore(t, f, bytesOf(1<<20+i, byte(i)), storage.MediaMetadata{MessageIndex: i})
	}
	disk := mount(t, "-t", "tmpfs", "-o", "size=16m", "tmpfs")
	dest := filepath.Join(disk, "dest")
	_, err := f.Backup(ctx, dest, engine.BackupOptions{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.ErrorContains(t, err, dest)
	require.Empty(t, damage(t, f))
	_, err = engine.Open(ctx, engine.FileStoreConfig{BaseDir: dest})
	require.ErrorIs(t, err, storage.ErrCorrupted)

	run(t, "mount", "-o", "remount,size=100m", disk)
	_, err = f.Backup(ctx, dest, engine.BackupOptions{})
	require.NoError(t, err)
	require.Equal(t, listedOf(t, f), openedBackup(t, dest))

	// So does a restore.
	small := mount(t, "-t", "tmpfs", "-o", "size=16m", "tmpfs")
	target := filepath.Join(small, "target")
	_, err = engine.Restore(ctx, dest, target, engine.RestoreOptions{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	run(t, "mount", "-o", "remount,size=100m", small)
	_, err = engine.Restore(ctx, dest, target, engine.RestoreOptions{})
	require.NoError(t, err)
	require.Equal(t, listedOf(t, f), openedBackup(t, target))

	// And an import.
	archive, err := os.Create(filepath.Join(t.TempDir(), "archive.tar"))
	require.NoError(t, err)
	defer func() { require.NoError(t, archive.Close()) }()
	_, err = f.Export(ctx, archive, engine.Query{})
	require.NoError(t, err)
	import3 := mount(t, "-t", "tmpfs", "-o", "size=16m", "tmpfs")
	to := mustOpen(t, engine.FileStoreConfig{BaseDir: filepath.Join(import3, "to"), Sync: engine.SyncNone})
	for _, want := range []error{storage.ErrDiskSpace, nil} {
		_, err = archive.Seek(0, 0)
		require.NoError(t, err)
		_, err = to.Import(ctx, archive)
		require.ErrorIs(t, err, want)
		require.Empty(t, damage(t, to))
		run(t, "mount", "-o", "remount,size=100m", import3)
	}
	require.Len(t, listedOf(t, to), 30)
	require.NoError(t, to.Close()) // before its disk goes
}

// On a filesystem whose files can share blocks, what cannot be linked does.
func TestBackupSharesBlocks(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 256<<20))
	run(t, "mkfs.btrfs", "-q", image)
	disk := mount(t, "-o", "loop", image)
	run(t, "btrfs", "subvolume", "create", filepath.Join(disk, "sub"))
	dir, dest := filepath.Join(disk, "store"), filepath.Join(disk, "sub", "dest")
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	mustStore(t, f, large, storage.MediaMetadata{})
	mustStore(t, f, small, storage.MediaMetadata{})
	b := mustBackup(t, f, dest, engine.BackupOptions{})
	require.EqualValues(t, 2, b.Shared)
	require.Equal(t, listedOf(t, f), openedBackup(t, dest))
	for _, name := range blobFiles(t, dir) {
		require.False(t, sameFile(t, filepath.Join(dir, name), filepath.Join(dest, name)))
	}
}
