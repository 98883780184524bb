package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
)

// What a backup has copied does not wait in staging for its end: no more than a store
// lets wait for a checkpoint, 8192, and the copies of a batch.
func TestBackupSettlesAsItGoes(t *testing.T) {
	if os.Getenv("MEDIABOLT_PROOF") == "" {
		t.Skip("a minute with the race detector: make crash-short and make crash have it")
	}
	const blobs, most = 9_000, 8192 + 128
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	dest := t.TempDir()
	staged, copied := 0, 0
	config = engine.WithFaults(config, func(_ context.Context, at engine.FaultPoint) error {
		if at != engine.FaultCopied {
			return nil
		}
		copied++
		names, err := filepath.Glob(filepath.Join(dest, ".mediabolt", "staging", "*", "*"))
		staged = max(staged, len(names))
		return err
	})
	f := mustOpen(t, config)
	fillMany(t, f, blobs)
	done, err := f.Backup(ctx, dest, engine.BackupOptions{Copy: true})
	require.NoError(t, err)
	require.EqualValues(t, blobs, done.Copied)
	require.Greater(t, copied, blobs/128)
	require.Positive(t, staged)
	require.LessOrEqual(t, staged, most, "copies in staging at one time")

	made := mustOpen(t, engine.FileStoreConfig{BaseDir: dest, NoCreate: true, EnableDeduplication: true})
	stats, err := made.Stats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, blobs, stats.References)
	left, err := os.ReadDir(filepath.Join(dest, ".mediabolt", "staging", "0"))
	require.NoError(t, err)
	require.Empty(t, left)
}
