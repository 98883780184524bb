package boltindex_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// salvage reads the log in a directory.
func salvage(t testing.TB, dir string) (*boltindex.Remains, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	return boltindex.Salvage(root)
}

// killedIndex is a copy of the log of an index with three references, one ended, in
// the records 1 to 4.
func killedIndex(t testing.TB) string {
	t.Helper()
	dir, killed := t.TempDir(), t.TempDir()
	x := mustOpen(t, dir)
	for i := byte(1); i <= 3; i++ {
		mustAdd(t, x, storage.UUID{15: i}, storage.MediaMetadata{SessionID: "s"})
	}
	_, err := x.Remove(context.Background(), idOf(storage.UUID{15: 2}))
	require.NoError(t, err)
	for _, name := range []string{"log.0", "log.1"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(killed, name), data, 0o600))
	}
	mustClose(t, x)
	return killed
}

func TestSalvage(t *testing.T) {
	dir := killedIndex(t)
	got, err := salvage(t, dir)
	require.NoError(t, err)
	require.Len(t, got.Blobs, 2)
	require.Len(t, got.Refs, 2)
	require.Equal(t, "s", got.Refs[0].Metadata.SessionID)
	require.Equal(t, []storage.UUID{{15: 2}}, got.Ended)
	require.Len(t, got.Unlinks, 1)
	require.Len(t, got.Mirrors, 3)

	// One of the segments is gone, and it was not the one.
	require.NoError(t, os.Remove(filepath.Join(dir, "log.1")))
	again, err := salvage(t, dir)
	require.NoError(t, err)
	require.Equal(t, got, again)
	require.NoError(t, os.Remove(filepath.Join(dir, "log.0")))
	_, err = salvage(t, dir)
	require.ErrorIs(t, err, storage.ErrNotFound)
}

// TestSalvageOfADamagedLog flips a bit in each record.
func TestSalvageOfADamagedLog(t *testing.T) {
	for record := range 4 {
		dir := killedIndex(t)
		name := filepath.Join(dir, "log.0")
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		data[record*4096+60] ^= 1
		require.NoError(t, os.WriteFile(name, data, 0o600))
		got, err := salvage(t, dir)
		if record < 3 { // those after it were begun when it was durable
			require.ErrorIs(t, err, storage.ErrCorrupted, "record %d", record)
			continue
		}
		require.NoError(t, err) // looks like one that a crash has cut short
		require.Len(t, got.Refs, 3)
		require.Empty(t, got.Ended)
	}
	// Segments of two stores do not go together.
	one, other := killedIndex(t), killedIndex(t)
	data, err := os.ReadFile(filepath.Join(other, "log.0"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(one, "log.1"), data, 0o600))
	_, err = salvage(t, one)
	require.ErrorIs(t, err, storage.ErrCorrupted)
}
