package engine_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// randomHarms are what may happen to a file of a store, or beside it.
var randomHarms = []func(t *testing.T, r *rand.Rand, dir, name string){
	func(t *testing.T, _ *rand.Rand, dir, name string) { require.NoError(t, os.Remove(under(dir, name))) },
	func(t *testing.T, r *rand.Rand, dir, name string) {
		info, err := os.Stat(under(dir, name))
		require.NoError(t, err)
		truncate(r.Int64N(info.Size()+2))(t, under(dir, name))
	},
	func(t *testing.T, r *rand.Rand, dir, name string) {
		data, err := os.ReadFile(under(dir, name))
		require.NoError(t, err)
		if len(data) > 0 {
			flip(r.Int64N(int64(len(data))))(t, under(dir, name))
		}
	},
	func(t *testing.T, _ *rand.Rand, dir, name string) {
		data, err := os.ReadFile(under(dir, name))
		require.NoError(t, err)
		plant("copies/"+path.Base(name), string(data))(t, dir, "")
	},
	func(t *testing.T, _ *rand.Rand, dir, name string) {
		require.NoError(t, os.MkdirAll(under(dir, "moved"), 0o700))
		require.NoError(t, os.Rename(under(dir, name), under(dir, "moved/"+path.Base(name))))
	},
	func(t *testing.T, _ *rand.Rand, dir, name string) {
		require.NoError(t, os.Remove(under(dir, name)))
		plant(name+"/below", "x")(t, dir, "")
	},
	func(t *testing.T, r *rand.Rand, dir, _ string) { plant(orphanName(r.IntN(1000)), "x")(t, dir, "") },
}

// Whatever happens to the files of a store, a repair makes it whole again: what can
// be read stays as it is, what is lost is in the manifest, and no file is gone.
func TestRepairOfRandomHarm(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	for round := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, round))
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: r.IntN(2) == 0, Sync: engine.SyncNone}
		f, err := engine.Open(context.Background(), config)
		require.NoError(t, err)
		want := map[string][]byte{}
		var refs []*storage.StorageReference
		for range 5 + r.IntN(20) {
			data := bytesOf(r.IntN(2000), byte(r.IntN(8)))
			ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: string(rune('a' + r.IntN(3)))})
			refs, want[ref.ID] = append(refs, ref), data
		}
		require.NoError(t, f.Checkpoint(context.Background()))
		for range 1 + r.IntN(6) {
			files := treeFiles(t, config.BaseDir)
			randomHarms[r.IntN(len(randomHarms))](t, r, config.BaseDir, filepath.ToSlash(files[r.IntN(len(files))]))
		}
		before := treeWithout(t, config.BaseDir)
		readable := map[string]bool{}
		for _, ref := range refs {
			_, err := f.Retrieve(context.Background(), ref)
			readable[ref.ID] = err == nil
		}
		plan := mustPlan(t, f, dropAll)
		if errors.Is(plan.Refusal, storage.ErrRefused) {
			require.NoError(t, f.Close()) // not one file was left in its place
			continue
		}
		for result, err := range f.Repair(context.Background(), plan) {
			require.NoError(t, err)
			require.NoError(t, result.Err, "seed %d round %d", seed, round)
		}
		require.Empty(t, damage(t, f), "seed %d round %d", seed, round)
		requireKept(t, config.BaseDir, before)
		lost := map[string]bool{}
		for _, item := range quarantined(t, f) {
			lost[item.Reference] = true
		}
		for _, ref := range refs {
			_, err := f.Stat(context.Background(), ref)
			switch {
			case err == nil:
				require.True(t, bytes.Equal(want[ref.ID], mustRetrieve(t, f, ref)), "seed %d round %d", seed, round)
			default:
				require.ErrorIs(t, err, storage.ErrNotFound)
				require.True(t, lost[ref.ID] && !readable[ref.ID], "seed %d round %d: %s", seed, round, ref.ID)
			}
		}
		require.NoError(t, f.Close())
	}
}
