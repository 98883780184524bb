package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// removing is a tree that calls after each file that it has removed.
type removing struct {
	engine.Blobs
	after func()
}

func (b *removing) Remove(ctx context.Context, key storage.BlobKey, path string) error {
	err := b.Blobs.Remove(ctx, key, path)
	b.after()
	return err
}

// The sidecar of a blob that moves is durable before the old one goes: after a power
// cut in between, the tree alone tells of every reference.
func TestSidecarsAfterAPowerCutWhileBlobsMove(t *testing.T) {
	requireFUSE(t)
	ctx := context.Background()
	m, err := strict.New(t.TempDir(), "", filepath.Join(t.TempDir(), "events"))
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	config := engine.FileStoreConfig{BaseDir: m.Dir + "/store", EnableDeduplication: true, NoSyncFS: true, Organization: storage.OrganizationFlat}
	want := map[string]bool{}
	setup(t, config, func(f *engine.FileStore) {
		for i := range 6 {
			want[mustStore(t, f, bytesOf(100, byte(i/2)), storage.MediaMetadata{SessionID: "s", MessageIndex: i}).ID] = true
		}
	})
	require.NoError(t, m.SyncFS())

	config.Organization = storage.OrganizationBySession
	var cuts []string
	var on atomic.Bool
	moving := engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		return i, &removing{b, func() {
			for seed := uint64(0); on.Load() && seed < 10; seed++ {
				dir := scratch(t)
				require.NoError(t, m.Cut(dir, strict.Choice{Keep: strict.Some, Seed: seed}))
				cuts = append(cuts, dir+"/store")
			}
		}}
	})
	setup(t, moving, func(f *engine.FileStore) {
		on.Store(true)
		done, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 3, done.Moved)
		on.Store(false)
	})
	require.Len(t, cuts, 3*10)
	for _, dir := range cuts {
		told := ""
		for _, name := range treeFiles(t, dir) {
			if strings.HasSuffix(name, ".meta") {
				data, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				told += string(data)
			}
		}
		for id := range want {
			require.Contains(t, told, id)
		}
	}
}
