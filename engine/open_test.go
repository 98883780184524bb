package engine_test

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// mustOpen opens a store that is verified and closed when the test ends, unless
// the test closed it: then it is opened once more and verified.
func mustOpen(t testing.TB, config engine.FileStoreConfig) *engine.FileStore {
	t.Helper()
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(func() {
		verifyClean(t, f, config)
		require.NoError(t, f.Close())
	})
	return f
}

// verifyClean requires that Verify, which includes bbolt's own check, finds no
// damage in a store that may have been closed.
func verifyClean(t testing.TB, f *engine.FileStore, config engine.FileStoreConfig) {
	t.Helper()
	ctx := context.Background()
	if _, err := f.Stats(ctx); errors.Is(err, storage.ErrClosed) {
		f, err = engine.Open(ctx, config)
		require.NoError(t, err, "reopen for the final verification")
		defer func() { require.NoError(t, f.Close()) }()
	}
	require.Empty(t, damage(t, f))
}

// damage is what Verify finds, notices left out.
func damage(t testing.TB, f *engine.FileStore) []storage.Finding {
	t.Helper()
	var found []storage.Finding
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		require.NoError(t, err)
		if finding.Severity == storage.SeverityDamage {
			found = append(found, finding)
		}
	}
	return found
}

// mustStore stores bytes and returns their reference.
func mustStore(t testing.TB, f *engine.FileStore, data []byte, m storage.MediaMetadata) *storage.StorageReference {
	t.Helper()
	ref, err := f.Store(context.Background(), content(data), m)
	require.NoError(t, err)
	return ref
}

// content is bytes as MediaContent.
func content(data []byte) *storage.MediaContent {
	return &storage.MediaContent{
		Type: "document", MimeType: "application/octet-stream",
		Data: "data:;base64," + base64.StdEncoding.EncodeToString(data),
	}
}

// mustRetrieve returns the bytes of a reference.
func mustRetrieve(t testing.TB, f *engine.FileStore, ref *storage.StorageReference) []byte {
	t.Helper()
	got, err := f.Retrieve(context.Background(), ref)
	require.NoError(t, err)
	data, err := base64.StdEncoding.DecodeString(got.Data)
	require.NoError(t, err)
	return data
}

func TestSharedBlobOutlivesOneOfItsReferences(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	a := mustStore(t, f, []byte("hello world"), storage.MediaMetadata{SessionID: "s1", ConversationID: "c1"})
	b := mustStore(t, f, []byte("hello world"), storage.MediaMetadata{SessionID: "s2", ConversationID: "c1"})
	require.NotEqual(t, a.ID, b.ID)
	require.Equal(t, a.Metadata["path"], b.Metadata["path"])

	require.NoError(t, f.Delete(ctx, a))
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	require.NoError(t, f.Delete(ctx, a), "a repeated delete is one delete, also after a restart")
	require.Equal(t, []byte("hello world"), mustRetrieve(t, f, b))
	_, err := f.Retrieve(ctx, a)
	require.ErrorIs(t, err, storage.ErrNotFound)

	require.NoError(t, f.Delete(ctx, b))
	stats, err := f.Stats(ctx)
	require.NoError(t, err)
	require.Zero(t, stats.References+stats.Blobs+stats.LogicalBytes+stats.PhysicalBytes)
	entries, err := os.ReadDir(config.BaseDir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "only .mediabolt is left")
}

// A store works on the index that its configuration opens, and tells it what
// it has to know.
func TestIndexOfTheCallers(t *testing.T) {
	ctx := context.Background()
	var opened []engine.IndexConfig
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Organization: storage.OrganizationByRun, FileMode: 0o640}
	config.OpenIndex = func(ctx context.Context, c engine.IndexConfig) (engine.Index, error) {
		opened = append(opened, c)
		return boltindex.Open(ctx, boltindex.Config(c))
	}
	f := mustOpen(t, config)
	ref := mustStore(t, f, []byte("hello"), storage.MediaMetadata{RunID: "r"})
	require.Equal(t, []byte("hello"), mustRetrieve(t, f, ref))
	require.NoError(t, f.Close())
	require.Len(t, opened, 1)
	require.True(t, opened[0].Create)
	require.Equal(t, storage.OrganizationByRun, opened[0].Organization)
	require.EqualValues(t, 0o640, opened[0].FileMode)
	require.NotNil(t, opened[0].Sync)

	broken := config
	broken.OpenIndex = func(context.Context, engine.IndexConfig) (engine.Index, error) { return nil, storage.ErrVersion }
	_, err := engine.Open(ctx, broken)
	require.ErrorIs(t, err, storage.ErrVersion)
}
