package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// organized stores references of every kind and returns them with their bytes.
func organized(t testing.TB, f *engine.FileStore) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for i := range 200 { // more than are moved together
		m := storage.MediaMetadata{SessionID: fmt.Sprint("s", i%3), ConversationID: fmt.Sprint("c", i%2), RunID: fmt.Sprint("r", i%5)}
		data := bytesOf(500, byte(i%150))
		all[mustStore(t, f, data, m).ID] = data
	}
	gone := mustStore(t, f, shared, someIDs)
	all[mustStore(t, f, shared, storage.MediaMetadata{RunID: "r"}).ID] = shared
	require.NoError(t, f.Delete(context.Background(), gone))
	return all
}

func TestReorganize(t *testing.T) {
	for _, dedup := range []bool{true, false} {
		t.Run(fmt.Sprint("dedup ", dedup), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: dedup}
			var all map[string][]byte
			setup(t, config, func(f *engine.FileStore) { all = organized(t, f) })
			names := map[string]int{}
			for _, file := range blobFiles(t, config.BaseDir) {
				names[filepath.Base(file)]++
			}
			// Back and forth, so that paths are used again.
			for _, mode := range []storage.OrganizationMode{
				storage.OrganizationFlat, storage.OrganizationByRun, storage.OrganizationBySession, storage.OrganizationByRun,
				storage.OrganizationByConversation, storage.OrganizationFlat,
			} {
				config.Organization = mode
				f := mustOpen(t, config)
				before := treeFiles(t, config.BaseDir)
				dry, err := f.Reorganize(ctx, engine.ReorganizeOptions{DryRun: true})
				require.NoError(t, err)
				require.Equal(t, before, treeFiles(t, config.BaseDir))
				calls := 0
				done, err := f.Reorganize(ctx, engine.ReorganizeOptions{Progress: func(engine.Reorganization, int64) { calls++ }})
				require.NoError(t, err)
				require.Equal(t, dry, done)
				require.EqualValues(t, mustStats(t, f).Blobs, done.Moved)
				require.Positive(t, calls)
				now := map[string]int{}
				for _, file := range blobFiles(t, config.BaseDir) {
					now[filepath.Base(file)]++
					require.Equal(t, len(strings.Split(string(mode), "-"))-1 > 0, strings.Contains(file, "/"), file)
				}
				require.Equal(t, names, now, "names stay")
				for id, data := range all {
					require.True(t, bytes.Equal(data, mustRetrieve(t, f, &storage.StorageReference{ID: id})))
				}
				require.Empty(t, damage(t, f))
				again, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
				require.NoError(t, err)
				require.Zero(t, again.Moved)
				require.NoError(t, f.Close())
			}
		})
	}
}

func TestCrashWhileReorganizing(t *testing.T) {
	for _, point := range []engine.FaultPoint{engine.FaultLinked, engine.FaultMoved, engine.FaultSettled} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			setup(t, config, func(f *engine.FileStore) {
				mustStore(t, f, small, someIDs)
				mustStore(t, f, shared, someIDs)
				mustStore(t, f, shared, storage.MediaMetadata{SessionID: "another"})
			})
			config.Organization = storage.OrganizationByRun
			c := &crash{point: point, from: config.BaseDir, copyDir: t.TempDir()}
			f, err := engine.Open(context.Background(), engine.WithFaults(config, c.fault))
			require.NoError(t, err)
			_, err = f.Reorganize(context.Background(), engine.ReorganizeOptions{})
			if point == engine.FaultLinked {
				require.ErrorIs(t, err, errCrash)
			} else if err == nil && point == engine.FaultSettled {
				require.ErrorIs(t, f.Checkpoint(context.Background()), errCrash)
			}
			require.True(t, c.reached.Load())
			require.NoError(t, c.copyErr)
			require.NoError(t, f.Abandon())
			for _, dir := range []string{config.BaseDir, c.copyDir} {
				config.BaseDir = dir
				requireRecovered(t, config, small, shared, shared)
				setup(t, config, func(f *engine.FileStore) {
					_, err := f.Reorganize(context.Background(), engine.ReorganizeOptions{})
					require.NoError(t, err)
				})
				requireRecovered(t, config, small, shared, shared)
				for _, file := range blobFiles(t, dir) {
					require.True(t, strings.HasPrefix(file, "no-run/"), file)
				}
			}
		})
	}
}

func TestReorganizeLeavesWhatIsDamaged(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var path string
	setup(t, config, func(f *engine.FileStore) {
		path = mustStore(t, f, small, someIDs).Metadata["path"]
		mustStore(t, f, other, someIDs)
	})
	require.NoError(t, os.Truncate(filepath.Join(config.BaseDir, path), 3))
	config.Organization = storage.OrganizationFlat
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	done, err := f.Reorganize(context.Background(), engine.ReorganizeOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.Moved)
	require.EqualValues(t, 1, done.Failed)
	require.Equal(t, path, done.Failures[0].Path)
	require.ErrorIs(t, done.Failures[0].Err, storage.ErrCorrupted)
	mustStore(t, f, small, someIDs) // heals it where it is
	done, err = f.Reorganize(context.Background(), engine.ReorganizeOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.Moved)
	require.NoError(t, f.Close())
	mustOpen(t, config)
}
