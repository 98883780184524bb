package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A store is killed that has published blobs and written sidecars, and not made them
// durable yet; its index is lost, and rebuilt. A power cut then takes nothing of what the
// new index counts as there: everything is in it, and in another one that is built.
func TestRebuildAfterAKillIsDurable(t *testing.T) {
	requireFUSE(t)
	ctx := context.Background()
	for name, sync := range strictModes {
		t.Run(name, func(t *testing.T) {
			mount, err := strict.New(scratch(t), "", os.DevNull)
			require.NoError(t, err)
			defer func() { require.NoError(t, mount.Close()) }()
			config := engine.FileStoreConfig{BaseDir: filepath.Join(mount.Dir, "store"), EnableDeduplication: true, NoSyncFS: sync == nil}
			if sync != nil {
				config = sync(config, mount.SyncFS)
			}
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			mustStore(t, f, small, someIDs)
			mustStore(t, f, small, storage.MediaMetadata{SessionID: "of another", Labels: map[string]string{"a": "b"}})
			mustStore(t, f, other, storage.MediaMetadata{UserID: "user"})
			require.NoError(t, f.WriteSidecars(ctx))
			want := listedOf(t, f)
			require.NoError(t, f.Abandon())
			loseIndex(t, config.BaseDir)
			require.Zero(t, mustRebuildLost(t, config).Adopted)

			for _, choice := range []strict.Choice{{Keep: strict.Nothing}, {Keep: strict.Some, Seed: 1}, {Keep: strict.Some, Seed: 2}, {Keep: strict.Everything}} {
				left := scratch(t)
				require.NoError(t, mount.Cut(left, choice))
				after := engine.FileStoreConfig{BaseDir: filepath.Join(left, "store"), EnableDeduplication: true}
				require.Equal(t, want, openedBackup(t, after.BaseDir), "%s survives", choice)
				loseIndex(t, after.BaseDir)
				mustRebuildLost(t, after)
				require.Equal(t, want, openedBackup(t, after.BaseDir), "%s survives, rebuilt again", choice)
			}
		})
	}
}

// mustRebuildLost rebuilds an index without a trace of the old one.
func mustRebuildLost(t *testing.T, config engine.FileStoreConfig) engine.Rebuilt {
	t.Helper()
	result, found := foundBy(t, config, true)
	require.Equal(t, []storage.FindingKind{storage.FindingIndex}, kinds(found))
	return result
}
