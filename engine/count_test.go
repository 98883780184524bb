package engine_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A reference that counts three is ended by the third deletion, whatever crashes
// come in between, and its sidecar says so.
func TestSetCount(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	ctx := context.Background()
	var ref *storage.StorageReference
	mustAbandon(t, config, func(f *engine.FileStore) {
		ref = mustStore(t, f, small, someIDs)
		require.EqualValues(t, 1, mustStat(t, f, ref).Count)
		require.NoError(t, f.SetCount(ctx, ref, 3))
		require.NoError(t, f.SetCount(ctx, ref, 3), "again, which changes nothing")
		require.NoError(t, f.Delete(ctx, ref))
	})
	mustAbandon(t, config, func(f *engine.FileStore) {
		require.EqualValues(t, 2, mustStat(t, f, ref).Count)
		require.Equal(t, small, mustRetrieve(t, f, ref))
		require.NoError(t, f.Delete(ctx, ref))
	})
	f := mustOpen(t, config)
	require.EqualValues(t, 1, mustStat(t, f, ref).Count)
	for _, n := range []int64{0, -1} {
		require.ErrorIs(t, f.SetCount(ctx, ref, n), storage.ErrInvalidQuery)
	}
	require.NoError(t, f.Delete(ctx, ref))
	require.ErrorIs(t, f.SetCount(ctx, ref, 2), storage.ErrNotFound)
	require.NoError(t, f.Delete(ctx, ref), "one more is one too many, and no harm")
	requireEmpty(t, f, config.BaseDir)
}
