package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// scoped is a configuration with a scope, and what hears of its events.
func scoped(t *testing.T, scope engine.DedupScope) (engine.FileStoreConfig, *heard) {
	h := new(heard)
	return engine.FileStoreConfig{
		BaseDir: t.TempDir(), EnableDeduplication: true, DedupScope: scope, EventListener: h.listener(),
	}, h
}

// storedBy are the ways to store bytes, each of which deduplicates.
var storedBy = map[string]func(t *testing.T, f *engine.FileStore, data []byte, m storage.MediaMetadata) *storage.StorageReference{
	"Store": func(t *testing.T, f *engine.FileStore, data []byte, m storage.MediaMetadata) *storage.StorageReference {
		return mustStore(t, f, data, m)
	},
	"StoreReader": func(t *testing.T, f *engine.FileStore, data []byte, m storage.MediaMetadata) *storage.StorageReference {
		ref, err := f.StoreReader(context.Background(), struct{ *bytes.Buffer }{bytes.NewBuffer(data)}, storage.MediaInfo{}, m)
		require.NoError(t, err)
		return ref
	},
}

// Within a scope content is shared; across scopes every path, count and event is as
// if the others had nothing.
func TestDedupScopes(t *testing.T) {
	t.Parallel()
	scopes := map[engine.DedupScope]func(id string) storage.MediaMetadata{
		engine.ScopeUser:    func(id string) storage.MediaMetadata { return storage.MediaMetadata{UserID: id, SessionID: "same"} },
		engine.ScopeSession: func(id string) storage.MediaMetadata { return storage.MediaMetadata{SessionID: id, UserID: "same"} },
	}
	for scope, of := range scopes {
		for how, store := range storedBy {
			for _, organization := range storage.OrganizationModes() {
				t.Run(string(scope)+"/"+how+"/"+string(organization), func(t *testing.T) {
					config, h := scoped(t, scope)
					config.Organization = organization
					f := mustOpen(t, config)
					data := bytesOf(2<<20, 1)
					a := store(t, f, bytes.Clone(data), of("a"))
					h.only(t, "stored")
					b := store(t, f, bytes.Clone(data), of("b"))
					h.only(t, "stored")
					again := store(t, f, bytes.Clone(data), of("a"))
					h.only(t, "shared")
					require.NotEqual(t, a.Metadata["path"], b.Metadata["path"])
					require.Equal(t, a.Metadata["path"], again.Metadata["path"])
					require.Equal(t, int64(2), mustStat(t, f, a).Refs)
					require.Equal(t, int64(1), mustStat(t, f, b).Refs)
					require.Len(t, blobFiles(t, config.BaseDir), 2)

					require.NoError(t, f.Delete(context.Background(), a))
					require.NoError(t, f.Delete(context.Background(), again))
					require.True(t, bytes.Equal(data, mustRetrieve(t, f, b)))
					require.Len(t, blobFiles(t, config.BaseDir), 1)
					h.take()
					store(t, f, bytes.Clone(data), of("a"))
					h.only(t, "stored")
				})
			}
		}
	}
}

// What lacks the ID of the scope shares with nobody, nor does anything within it.
func TestDedupScopeOfWhatHasNoID(t *testing.T) {
	config, h := scoped(t, engine.ScopeUser)
	f := mustOpen(t, config)
	paths := map[string]bool{}
	for _, m := range []storage.MediaMetadata{{}, {}, {SessionID: "s", RunID: "r", ConversationID: "c"}, {UserID: "u"}} {
		ref := mustStore(t, f, []byte("the same"), m)
		h.only(t, "stored")
		require.Equal(t, int64(1), mustStat(t, f, ref).Refs)
		paths[ref.Metadata["path"]] = true
	}
	require.Len(t, paths, 4)
}

// A changed scope leaves what is there as it is, also when its sharers go.
func TestDedupScopeChanged(t *testing.T) {
	config, h := scoped(t, "")
	m := storage.MediaMetadata{UserID: "u", SessionID: "s"}
	paths := map[string]int{}
	var refs []*storage.StorageReference
	for range 2 {
		for _, scope := range []engine.DedupScope{"", engine.ScopeUser, engine.ScopeSession, engine.ScopeGlobal} {
			config.DedupScope = scope
			f := mustOpen(t, config)
			h.take()
			ref := mustStore(t, f, []byte("the same"), m)
			refs = append(refs, ref)
			paths[ref.Metadata["path"]]++
			require.NoError(t, f.Close())
		}
	}
	require.ElementsMatch(t, []int{4, 2, 2}, []int{
		paths[refs[0].Metadata["path"]], paths[refs[1].Metadata["path"]], paths[refs[2].Metadata["path"]]})
	f := mustOpen(t, config)
	listed := 0
	for e, err := range f.References(context.Background(), sha256.Sum256([]byte("the same"))) {
		require.NoError(t, err)
		require.Equal(t, refs[listed].ID, e.Reference.ID)
		listed++
	}
	require.Equal(t, len(refs), listed)
	for i, ref := range refs {
		require.NoError(t, f.Delete(context.Background(), ref))
		for _, rest := range refs[i+1:] {
			require.Equal(t, []byte("the same"), mustRetrieve(t, f, rest))
		}
	}
	requireEmpty(t, f, config.BaseDir)
}

// The file of a scoped blob is no orphan when the reference that it is named after
// has gone and its sidecar is lost.
func TestVerifyKnowsFilesOfScopes(t *testing.T) {
	config, _ := scoped(t, engine.ScopeSession)
	f := mustOpen(t, config)
	founder := mustStore(t, f, []byte("the same"), storage.MediaMetadata{SessionID: "s"})
	heir := mustStore(t, f, []byte("the same"), storage.MediaMetadata{SessionID: "s"})
	require.NoError(t, f.Delete(context.Background(), founder))
	require.NoError(t, f.Checkpoint(context.Background()))
	sidecar := filepath.Join(config.BaseDir, filepath.FromSlash(heir.Metadata["path"])) + ".meta"
	kept, err := os.ReadFile(sidecar)
	require.NoError(t, err)
	require.NoError(t, os.Remove(sidecar))
	found := damage(t, f)
	require.Len(t, found, 1)
	require.Equal(t, storage.FindingSidecar, found[0].Kind)
	require.NoError(t, os.WriteFile(sidecar, kept, 0o600))
}

// A crash between the steps of a Store in a scope is recovered like any other.
func TestCrashInAScope(t *testing.T) {
	for _, point := range []engine.FaultPoint{engine.FaultStaged, engine.FaultCommitted, engine.FaultPublished} {
		t.Run(string(point), func(t *testing.T) {
			config, _ := scoped(t, engine.ScopeUser)
			f, err := engine.Open(context.Background(), engine.WithFaults(config, func(_ context.Context, at engine.FaultPoint) error {
				if at == point {
					return errCrash
				}
				return nil
			}))
			require.NoError(t, err)
			_, err = f.Store(context.Background(), content(small), storage.MediaMetadata{UserID: "u", SessionID: "s"})
			require.ErrorIs(t, err, errCrash)
			require.NoError(t, f.Abandon())
			if point == engine.FaultStaged {
				requireRecovered(t, config)
			} else {
				requireRecovered(t, config, small)
			}
		})
	}
}

func TestDedupScopeThatIsNone(t *testing.T) {
	_, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: t.TempDir(), DedupScope: "per-team"})
	require.ErrorIs(t, err, storage.ErrInvalidConfig)
	require.ErrorContains(t, err, `DedupScope "per-team": want "global", "per-user" or "per-session"`)
}
