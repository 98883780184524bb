package blobs

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// After a Settle that failed, no later one removes the staged names that it did
// not make superfluous.
func TestFailedSettleKeepsStagedNames(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	tree, err := Open(Config{Root: root, NoSyncFS: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tree.Close())
		require.NoError(t, root.Close())
	})
	ctx := context.Background()
	key := storage.UUIDKey(storage.UUID{1})
	name := "s/c/" + storage.ID{UUID: storage.UUID{1}}.String() + ".bin"
	require.NoError(t, tree.Stage(ctx, key, []byte("hello")))
	done, err := tree.Prepare(ctx, name)
	require.NoError(t, err)
	require.NoError(t, tree.Sync(ctx, key))
	require.NoError(t, tree.Publish(ctx, key, name))
	done(true)

	// A loop of links in place of the directory stands for a failing sync.
	session := filepath.Join(dir, "s")
	require.NoError(t, os.Rename(session, session+".away"))
	if err := os.Symlink("s", session); err != nil {
		t.Skip("making symbolic links needs a privilege on Windows")
	}
	require.Error(t, tree.Settle(ctx))
	require.NoError(t, os.Remove(session))
	require.NoError(t, os.Rename(session+".away", session))
	require.NoError(t, tree.Settle(ctx))
	require.FileExists(t, filepath.Join(dir, stagedPath(key)))
}

// The removal of a staged name is made durable by the Settle after: what it
// syncs includes the staging directory.
func TestSettleMakesRemovalsInStagingDurable(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	tree, err := Open(Config{Root: root, NoSyncFS: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, tree.Close())
		require.NoError(t, root.Close())
	})
	ctx := context.Background()
	key := storage.UUIDKey(storage.UUID{1})
	name := storage.ID{UUID: storage.UUID{1}}.String() + ".bin"
	require.NoError(t, tree.Stage(ctx, key, []byte("hello")))
	require.NoError(t, tree.Sync(ctx, key))
	require.NoError(t, tree.Publish(ctx, key, name))
	require.NoError(t, tree.Settle(ctx))
	require.NoFileExists(t, filepath.Join(root.Name(), stagedPath(key)))
	require.Contains(t, tree.changed, path.Dir(stagedPath(key)))
}
