package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// restoredPair is a store with a backup in dest, and another one restored from that.
func restoredPair(t *testing.T, config engine.FileStoreConfig) (lost, f *engine.FileStore, dest, dir string) {
	t.Helper()
	dest, dir = filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	lost = mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	for _, data := range [][]byte{small, shared, large} {
		mustStore(t, lost, data, someIDs)
	}
	mustBackup(t, lost, dest, engine.BackupOptions{})
	_, err := engine.Restore(context.Background(), dest, dir, engine.RestoreOptions{})
	require.NoError(t, err)
	config.BaseDir, config.EnableDeduplication = dir, true
	return lost, mustOpen(t, config), dest, dir
}

func requireConflict(t *testing.T, f *engine.FileStore, dest string, take bool, says string) {
	t.Helper()
	before := openedBackup(t, dest)
	_, err := f.Backup(context.Background(), dest, engine.BackupOptions{TakeOver: take})
	require.ErrorIs(t, err, storage.ErrConflict)
	require.ErrorContains(t, err, says)
	require.Equal(t, before, openedBackup(t, dest))
}

// A restored store goes on in the backup that it comes from when it is told to, and
// keeps it from then on.
func TestRestoredStoreTakesItsBackupOver(t *testing.T) {
	lost, f, dest, dir := restoredPair(t, engine.FileStoreConfig{})
	mustStore(t, f, other, someIDs)
	requireConflict(t, f, dest, false, "--take-over")
	done := mustBackup(t, f, dest, engine.BackupOptions{TakeOver: true})
	require.EqualValues(t, 3, done.Kept)
	require.Equal(t, listedOf(t, f), openedBackup(t, dest))

	for _, take := range []bool{false, true} {
		requireConflict(t, lost, dest, take, dir)
	}
	mustStore(t, f, bytesOf(100, 7), someIDs)
	mustBackup(t, f, dest, engine.BackupOptions{})
	require.Equal(t, listedOf(t, f), openedBackup(t, dest))

	// A store that was restored from this one comes from this one alone.
	again := filepath.Join(t.TempDir(), "again")
	_, err := engine.Restore(context.Background(), dest, again, engine.RestoreOptions{})
	require.NoError(t, err)
	third := mustOpen(t, engine.FileStoreConfig{BaseDir: again, EnableDeduplication: true})
	mustBackup(t, third, dest, engine.BackupOptions{TakeOver: true})
	require.Equal(t, listedOf(t, third), openedBackup(t, dest))
}

// A backup that the other store has gone on with is not taken over, nor is any other.
func TestBackupsOfLivingStoresAreNotTakenOver(t *testing.T) {
	lost, f, dest, _ := restoredPair(t, engine.FileStoreConfig{})
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	mustBackup(t, lost, elsewhere, engine.BackupOptions{})
	requireConflict(t, f, elsewhere, true, "another store")
	mustBackup(t, lost, dest, engine.BackupOptions{})
	requireConflict(t, f, dest, true, "another store")
	requireConflict(t, lost, restoredBackup(t, f), true, "another store")
}

// restoredBackup is a new backup of a store.
func restoredBackup(t *testing.T, f *engine.FileStore) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "own")
	mustBackup(t, f, dest, engine.BackupOptions{})
	return dest
}

// Until the first change of what the other store has backed up it is that one's; from
// then on it is the new one's to finish.
func TestTakeOverAfterCrashes(t *testing.T) {
	ctx := context.Background()
	for _, point := range []engine.FaultPoint{engine.FaultCollected, engine.FaultTurning, engine.FaultTurned} {
		t.Run(string(point), func(t *testing.T) {
			broken := errors.New("broken")
			on := false
			lost, f, dest, _ := restoredPair(t, engine.WithFaults(engine.FileStoreConfig{}, func(_ context.Context, p engine.FaultPoint) error {
				if on && p == point {
					return broken
				}
				return nil
			}))
			mustStore(t, f, other, someIDs)
			on = true
			_, err := f.Backup(ctx, dest, engine.BackupOptions{TakeOver: true})
			require.ErrorIs(t, err, broken)
			on = false
			if point == engine.FaultCollected {
				_, err := f.Backup(ctx, dest, engine.BackupOptions{})
				require.ErrorIs(t, err, storage.ErrConflict)
				mustBackup(t, f, dest, engine.BackupOptions{TakeOver: true})
			} else {
				_, err := lost.Backup(ctx, dest, engine.BackupOptions{})
				require.ErrorIs(t, err, storage.ErrConflict)
				mustBackup(t, f, dest, engine.BackupOptions{})
			}
			require.Equal(t, listedOf(t, f), openedBackup(t, dest))
		})
	}
}

// A marker that tells of another store, or of a backup that is not whole, is none of the
// backup that a store was restored from, whatever its time.
func TestTakeOverLooksAtAllOfAMarker(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(m map[string]any){
		"another store": func(m map[string]any) { m["store"] = "01234567-89ab-cdef-0123-456789abcdef" },
		"not whole":     func(m map[string]any) { m["whole"] = false },
	} {
		_, f, dest, _ := restoredPair(t, engine.FileStoreConfig{})
		file := filepath.Join(dest, ".mediabolt", "backup.json")
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(data, &m))
		change(m)
		data, err = json.Marshal(m)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, data, 0o600))
		_, err = f.Backup(ctx, dest, engine.BackupOptions{TakeOver: true})
		require.ErrorIs(t, err, storage.ErrConflict, name)
	}
}
