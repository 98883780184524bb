package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// After an erasure and a compaction no file of the store has the session's ID.
func TestCompactAfterErase(t *testing.T) {
	const gone = "session-of-somebody-who-left"
	dir := t.TempDir()
	f, err := engine.Open(t.Context(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone})
	require.NoError(t, err)
	store := func(session, text string) *storage.StorageReference {
		ref, err := f.Store(t.Context(), &storage.MediaContent{Type: "document", MimeType: "text/plain", FilePath: fileWith(t, text)},
			storage.MediaMetadata{SessionID: session})
		require.NoError(t, err)
		return ref
	}
	var kept []*storage.StorageReference
	for i := range 20 {
		kept = append(kept, store("other", fmt.Sprint("text ", i)))
		store(gone, fmt.Sprint("text ", i%2, " of mine"))
		store(gone, fmt.Sprint("text ", i))
	}
	_, err = f.Erase(t.Context(), engine.Query{SessionID: gone}, engine.EraseOptions{})
	require.NoError(t, err)
	plan, err := f.Compact(t.Context(), engine.CompactOptions{DryRun: true})
	require.NoError(t, err)
	require.Positive(t, plan.Need)
	done, err := f.Compact(t.Context(), engine.CompactOptions{})
	require.NoError(t, err)
	require.LessOrEqual(t, done.After, done.Need)
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, ".mediabolt"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.False(t, bytes.Contains(data, []byte(gone)), path)
		return err
	}))
	for _, ref := range kept {
		_, err := f.Retrieve(t.Context(), ref)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	_, err = f.Compact(t.Context(), engine.CompactOptions{})
	require.ErrorIs(t, err, storage.ErrClosed)
}

func fileWith(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// plainIndex hides what an index can do beyond engine.Index.
type plainIndex struct{ engine.Index }

func TestCompactNeedsAnIndexThatCan(t *testing.T) {
	dir := t.TempDir()
	config := engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone}
	f, err := engine.Open(t.Context(), engine.WithSeams(config, func(x engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		return plainIndex{x}, b
	}))
	require.NoError(t, err)
	_, err = f.Compact(t.Context(), engine.CompactOptions{})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "plainIndex")
	require.NoError(t, f.Close())
}
