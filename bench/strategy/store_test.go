package strategy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// TestStore runs a whole store on every strategy: it stores, deduplicates,
// deletes, and is opened again.
func TestStore(t *testing.T) {
	forEach(t, func(t *testing.T, s strategy.Strategy) {
		ctx := context.Background()
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, OpenIndex: s.Open}
		f, err := engine.Open(ctx, config)
		require.NoError(t, err)
		one, same, other := mustStore(t, f, "one"), mustStore(t, f, "one"), mustStore(t, f, "other")
		require.Equal(t, one.Metadata["path"], same.Metadata["path"])
		require.NoError(t, f.Delete(ctx, one))
		require.NoError(t, f.Delete(ctx, one))
		require.NoError(t, f.Delete(ctx, other))
		requireContent(t, f, same, "one")
		requireWhole(t, f, same)
		require.NoError(t, f.Close())

		f, err = engine.Open(ctx, config)
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		_, err = f.Retrieve(ctx, other)
		require.ErrorIs(t, err, storage.ErrNotFound)
		if s.Loses != "" {
			requireForgotten(t, f, same)
			return
		}
		requireContent(t, f, same, "one")
		again := mustStore(t, f, "one")
		require.Equal(t, same.Metadata["path"], again.Metadata["path"])
		require.NoError(t, f.Delete(ctx, again))
		requireWhole(t, f, same)
	})
}

// requireForgotten requires that a store which forgets its references has the
// blob of one, and says that nothing refers to it.
func requireForgotten(t *testing.T, f *engine.FileStore, ref *storage.StorageReference) {
	t.Helper()
	_, err := f.Retrieve(context.Background(), ref)
	require.ErrorIs(t, err, storage.ErrNotFound)
	stats, err := f.Stats(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 0, stats.References)
	require.EqualValues(t, 1, stats.Blobs)
	var kinds []storage.FindingKind
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		require.NoError(t, err)
		kinds = append(kinds, finding.Kind)
	}
	require.Contains(t, kinds, storage.FindingRefcount)
}

func mustStore(t *testing.T, f *engine.FileStore, content string) *storage.StorageReference {
	t.Helper()
	ref, err := f.StoreReader(context.Background(), bytes.NewReader([]byte(content)), storage.MediaInfo{MimeType: "text/plain"},
		storage.MediaMetadata{SessionID: "s", UserID: "u"})
	require.NoError(t, err)
	return ref
}

func requireContent(t *testing.T, f *engine.FileStore, ref *storage.StorageReference, content string) {
	t.Helper()
	media, err := f.Retrieve(context.Background(), ref)
	require.NoError(t, err)
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte(content)), media.Data)
}

// requireWhole requires that the store finds nothing wrong with itself and lists
// one reference.
func requireWhole(t *testing.T, f *engine.FileStore, ref *storage.StorageReference) {
	t.Helper()
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		require.NoError(t, err)
		require.Failf(t, "finding", "%+v", finding)
	}
	var ids []string
	for e, err := range f.List(context.Background(), engine.Query{SessionID: "s"}) {
		require.NoError(t, err)
		ids = append(ids, e.Reference.ID)
	}
	require.Equal(t, []string{ref.ID}, ids)
}

// TestOpen checks what opening refuses.
func TestOpen(t *testing.T) {
	forEach(t, func(t *testing.T, s strategy.Strategy) {
		ctx, dir := context.Background(), t.TempDir()
		_, err := open(ctx, t, s, dir, engine.IndexConfig{})
		require.ErrorIs(t, err, storage.ErrNoStore)
		x, err := open(ctx, t, s, dir, engine.IndexConfig{Create: true, Organization: storage.OrganizationFlat})
		require.NoError(t, err)
		require.Equal(t, storage.OrganizationFlat, x.Organization())
		_, err = open(ctx, t, s, dir, engine.IndexConfig{LockTimeout: 20 * time.Millisecond})
		require.ErrorIs(t, err, storage.ErrLocked)
		require.NoError(t, x.Close())
		x, err = open(ctx, t, s, dir, engine.IndexConfig{})
		require.NoError(t, err)
		if s.Loses == "" {
			require.Equal(t, storage.OrganizationFlat, x.Organization())
		} else {
			require.Equal(t, storage.OrganizationBySession, x.Organization())
		}
		require.NoError(t, x.Close())
	})
}

// TestStagedBytes checks that staged bytes are made durable before an addition
// that needs them is there, that others do not ask for it, and that a failure
// leaves nothing.
func TestStagedBytes(t *testing.T) {
	forEach(t, func(t *testing.T, s strategy.Strategy) {
		ctx := context.Background()
		var x engine.Index
		var synced []storage.BlobKey
		var failure error
		config := engine.IndexConfig{Create: true, Sync: func(keys []storage.BlobKey) error {
			_, err := x.Blob(ctx, keys[0])
			require.ErrorIs(t, err, storage.ErrNotFound)
			synced = append(synced, keys...)
			return failure
		}}
		x, err := open(ctx, t, s, t.TempDir(), config)
		require.NoError(t, err)
		defer func() { require.NoError(t, x.Close()) }()
		first := addition(1, 1)
		_, err = x.Add(ctx, first)
		require.NoError(t, err)
		present := addition(2, 1)
		present.Staged = false
		_, err = x.Add(ctx, present)
		require.NoError(t, err)
		require.Equal(t, []storage.BlobKey{first.Ref.Blob}, synced)

		failure = storage.ErrIO
		lost := addition(3, 3)
		_, err = x.Add(ctx, lost)
		require.ErrorIs(t, err, storage.ErrIO)
		_, err = x.Blob(ctx, lost.Ref.Blob)
		require.ErrorIs(t, err, storage.ErrNotFound)
		failure = nil
		_, err = x.Add(ctx, lost)
		require.NoError(t, err)
		mustVerify(t, x)
	})
}
