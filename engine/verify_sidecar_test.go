package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// What a sidecar says of policy, expiry, count and revision of a reference is compared
// with its row, at every depth, and a repair writes it anew.
func TestVerifyFindsWhatSidecarsSayOfChanges(t *testing.T) {
	ctx := context.Background()
	at := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	for name, change := range map[string]func(ref *storage.RefRow){
		"policy":    func(ref *storage.RefRow) { ref.Metadata.Policy = "retain-1days" },
		"expiry":    func(ref *storage.RefRow) { ref.ExpiresAt = at },
		"no expiry": func(ref *storage.RefRow) { ref.ExpiresAt = time.Time{} },
		"count":     func(ref *storage.RefRow) { ref.Count++ },
		"revision":  func(ref *storage.RefRow) { ref.Revision-- },
	} {
		t.Run(name, func(t *testing.T) {
			var index engine.Index
			config := engine.WithSeams(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true},
				func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) { index = i; return i, b })
			f := mustOpen(t, config)
			mustStore(t, f, shared, someIDs)
			ref := mustStore(t, f, shared, storage.MediaMetadata{SessionID: "another"})
			require.NoError(t, f.SetCount(ctx, ref, 3))
			_, err := f.Retain(ctx, ref, "retain-30days")
			require.NoError(t, err)
			require.NoError(t, f.Checkpoint(ctx))
			require.Empty(t, damage(t, f))

			rows, _, _, err := index.Refs(ctx, storage.RefFilter{}, storage.UUID{}, 10)
			require.NoError(t, err)
			require.Len(t, rows, 2)
			file := filepath.Join(config.BaseDir, rows[0].Blob.Path+".meta")
			good, err := blobs.EncodeSidecar(&rows[0].Blob, []storage.RefRow{rows[0].Ref, rows[1].Ref})
			require.NoError(t, err)
			wrong := rows[1].Ref
			change(&wrong)
			bad, err := blobs.EncodeSidecar(&rows[0].Blob, []storage.RefRow{rows[0].Ref, wrong})
			require.NoError(t, err)
			require.NotEqual(t, good, bad)
			require.NoError(t, os.WriteFile(file, bad, 0o600))
			for _, depth := range []engine.VerifyDepth{engine.DepthQuick, engine.DepthChecksum, engine.DepthDeep} {
				var found []storage.Finding
				for finding, err := range f.Verify(ctx, engine.VerifyOptions{Depth: depth}) {
					require.NoError(t, err)
					found = append(found, finding)
				}
				require.Len(t, found, 1, depth)
				require.Equal(t, storage.FindingSidecar, found[0].Kind)
				require.Contains(t, found[0].Detail, ref.ID)
			}
			require.Equal(t, map[engine.RepairAction]int{engine.RepairSidecar: 1}, mustRepair(t, f, anything))
			require.Empty(t, damage(t, f))
			now, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(good), string(now))
		})
	}
}

// Changes of references that come and go beside a verification are no damage.
func TestVerifyBesideChangesOfReferences(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	var refs []*storage.StorageReference
	for i := range 40 {
		refs = append(refs, mustStore(t, f, bytesOf(100, byte(i/4)), storage.MediaMetadata{MessageIndex: i}))
	}
	quit := make(chan struct{})
	var busy sync.WaitGroup
	defer busy.Wait()
	defer close(quit)
	for worker := range 4 {
		busy.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				default:
				}
				ref := refs[(n*4+worker)%len(refs)]
				_, err := f.Retain(ctx, ref, fmt.Sprintf("retain-%ddays", 1+n%50))
				if err == nil {
					err = f.SetCount(ctx, ref, int64(1+n%5))
				}
				if err == nil && n%20 == 0 {
					err = f.Checkpoint(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		require.Empty(t, damage(t, f))
	}
}
