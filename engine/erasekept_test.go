package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// An erasure names what it leaves in the quarantine and of kept indexes, where that
// tells of what was erased, and nothing else.
func TestEraseNamesWhatItLeaves(t *testing.T) {
	ctx := context.Background()
	loseSidecar := func(t *testing.T, dir, path string) { // a mirror of one reference of two
		data, err := os.ReadFile(filepath.Join(dir, path+".meta"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, path+".meta"), data[:bytes.IndexByte(data, '\n')+1], 0o600))
	}
	user := storage.MediaMetadata{UserID: "erased-user"}
	for name, c := range map[string]struct {
		metadata storage.MediaMetadata
		harm     func(t *testing.T, dir, path string) // to the blob of a reference that has the metadata
		named    bool
	}{
		"a path": {storage.MediaMetadata{SessionID: "erased-user"}, func(t *testing.T, dir, path string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Dir(path), filepath.Base(orphanName(100))), small, 0o600))
		}, true},
		"a sidecar": {user, loseSidecar, true},
		"a lost reference": {user, func(t *testing.T, dir, path string) {
			require.NoError(t, os.Remove(filepath.Join(dir, path)))
			require.NoError(t, os.Remove(filepath.Join(dir, path+".meta")))
		}, true},
		"others alone": {storage.MediaMetadata{SessionID: "other", UserID: "other"}, loseSidecar, false},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/dry=%v", name, dry), func(t *testing.T) {
				dir := t.TempDir()
				f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
				mustStore(t, f, small, user)
				ref := mustStore(t, f, other, c.metadata)
				mustStore(t, f, other, c.metadata)
				require.NoError(t, f.Checkpoint(ctx))
				c.harm(t, dir, ref.Metadata["path"])
				require.NotEmpty(t, mustRepair(t, f, engine.RepairOptions{MaxShare: 100, DropLost: true}))
				kept := filepath.Join(dir, ".mediabolt", "index.db.format-1")
				require.NoError(t, os.WriteFile(kept, []byte("a copy"), 0o600))

				query := engine.Query{UserID: "erased-user"}
				if c.metadata.SessionID == "erased-user" {
					query = engine.Query{SessionID: "erased-user"}
				}
				done, err := f.Erase(ctx, query, engine.EraseOptions{DryRun: dry})
				require.NoError(t, err)
				require.Equal(t, []string{".mediabolt/index.db.format-1"}, done.KeptIndexes)
				if !c.named {
					require.Empty(t, done.Quarantined)
					return
				}
				require.Equal(t, []string{quarantined(t, f)[0].Batch}, done.Quarantined)
				if dry {
					return
				}
				require.Equal(t, []engine.Erasure{done}, allErasures(t, f))
				for _, err := range f.PurgeQuarantine(ctx, time.Now().Add(time.Second)) {
					require.NoError(t, err)
				}
				require.NoError(t, os.Remove(kept))
				again, err := f.Erase(ctx, query, engine.EraseOptions{})
				require.NoError(t, err)
				require.Empty(t, again.Quarantined)
				require.Empty(t, again.KeptIndexes)
			})
		}
	}
}
