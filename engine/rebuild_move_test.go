package engine_test

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A blob that lies at two paths under one name, as a power cut leaves it in the middle of
// a reorganization, comes back with all of its references and none besides, when index
// and log are lost too.
func TestRebuildOfABlobAtTwoPaths(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, from, to string, sidecar []byte){
		"linked": func(*testing.T, string, string, []byte) {},
		"sidecar begun": func(t *testing.T, _, to string, sidecar []byte) {
			require.NoError(t, os.WriteFile(to+".meta", sidecar[:40], 0o600))
		},
		"sidecar cut short": func(t *testing.T, _, to string, sidecar []byte) {
			require.NoError(t, os.WriteFile(to+".meta", sidecar[:bytes.IndexByte(sidecar, '\n')+20], 0o600))
		},
		"sidecar whole": func(t *testing.T, _, to string, sidecar []byte) {
			require.NoError(t, os.WriteFile(to+".meta", sidecar, 0o600))
		},
		"old file gone": func(t *testing.T, from, to string, sidecar []byte) {
			require.NoError(t, os.WriteFile(to+".meta", sidecar, 0o600))
			require.NoError(t, os.Remove(from))
		},
	} {
		for _, dir := range []string{"aaa", "zzz"} { // before and after the old one
			t.Run(fmt.Sprintf("%s, to %s", name, dir), func(t *testing.T) {
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
				var from string
				var refs []*storage.StorageReference
				setup(t, config, func(f *engine.FileStore) {
					for _, session := range []string{"m", "n", "o"} {
						refs = append(refs, mustStore(t, f, []byte("shared"), storage.MediaMetadata{SessionID: session}))
					}
					refs = append(refs, mustStore(t, f, []byte("another"), storage.MediaMetadata{SessionID: "m"}))
					from = filepath.Join(config.BaseDir, filepath.FromSlash(refs[0].Metadata["path"]))
				})
				to := filepath.Join(config.BaseDir, dir, "no-conversation", path.Base(refs[0].Metadata["path"]))
				require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
				require.NoError(t, os.Link(from, to))
				sidecar, err := os.ReadFile(from + ".meta")
				require.NoError(t, err)
				require.Equal(t, 3, bytes.Count(sidecar, []byte{'\n'}))
				move(t, from, to, sidecar)
				for _, file := range []string{"index.db", "index.sums", "log.0", "log.1"} {
					require.NoError(t, os.Remove(filepath.Join(config.BaseDir, ".mediabolt", file)))
				}

				result, err := engine.Rebuild(t.Context(), config, engine.RebuildOptions{Deep: true})
				require.NoError(t, err)
				require.Zero(t, result.Adopted)
				f := mustOpen(t, config)
				require.Len(t, allEntries(t, f, engine.Query{}), len(refs))
				for i, want := range []string{"shared", "shared", "shared", "another"} {
					require.Equal(t, want, string(mustRetrieve(t, f, refs[i])))
				}
				for finding, err := range f.Verify(t.Context(), engine.VerifyOptions{}) {
					require.NoError(t, err)
					require.Equal(t, storage.FindingOrphan, finding.Kind, "%+v", finding)
					require.Equal(t, path.Base(to), path.Base(strings.TrimSuffix(finding.Path, ".meta")))
					require.NoError(t, os.Remove(filepath.Join(config.BaseDir, filepath.FromSlash(finding.Path))))
				}
			})
		}
	}
}

// A file without a sidecar that has the name of another blob, and other bytes, is a
// reference of its own, which takes nothing from the other.
func TestRebuildOfAnotherFileOfTheSameName(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
	var ref *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) {
		ref = mustStore(t, f, []byte("the first"), storage.MediaMetadata{SessionID: "m"})
	})
	other := filepath.Join(config.BaseDir, "aaa", "no-conversation", path.Base(ref.Metadata["path"]))
	require.NoError(t, os.MkdirAll(filepath.Dir(other), 0o700))
	require.NoError(t, os.WriteFile(other, []byte("the second"), 0o600))
	for _, file := range []string{"index.db", "index.sums", "log.0", "log.1"} {
		require.NoError(t, os.Remove(filepath.Join(config.BaseDir, ".mediabolt", file)))
	}
	result, err := engine.Rebuild(t.Context(), config, engine.RebuildOptions{Deep: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, result.Adopted)
	f := mustOpen(t, config)
	entries := allEntries(t, f, engine.Query{})
	require.Len(t, entries, 2)
	for _, e := range entries {
		want := "the second"
		if e.Reference.ID == ref.ID {
			want = "the first"
		}
		require.Equal(t, want, string(mustRetrieve(t, f, &e.Reference)))
	}
	require.Empty(t, damage(t, f))
}
