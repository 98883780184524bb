package engine_test

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// anything lets a repair touch all of a store.
var anything = engine.RepairOptions{MaxShare: 100}

func mustPlan(t testing.TB, f *engine.FileStore, opts engine.RepairOptions) *engine.RepairPlan {
	t.Helper()
	plan, err := f.PlanRepair(context.Background(), opts)
	require.NoError(t, err)
	return plan
}

// mustRepair plans and does, and answers what was done.
func mustRepair(t testing.TB, f *engine.FileStore, opts engine.RepairOptions) map[engine.RepairAction]int {
	t.Helper()
	plan := mustPlan(t, f, opts)
	require.NoError(t, plan.Refusal)
	done := map[engine.RepairAction]int{}
	for result, err := range f.Repair(context.Background(), plan) {
		require.NoError(t, err)
		require.NoError(t, result.Err)
		require.True(t, result.Done, "%+v", result)
		done[result.Item.Action]++
	}
	return done
}

func quarantined(t testing.TB, f *engine.FileStore) []engine.QuarantineItem {
	t.Helper()
	var items []engine.QuarantineItem
	for item, err := range f.Quarantine(context.Background()) {
		require.NoError(t, err)
		items = append(items, item)
	}
	return items
}

// restoreAll restores every batch, the last first.
func restoreAll(t testing.TB, f *engine.FileStore) {
	t.Helper()
	batches := map[string]bool{}
	for _, item := range quarantined(t, f) {
		batches[item.Batch] = true
	}
	for _, batch := range slices.Backward(slices.Sorted(maps.Keys(batches))) {
		for r, err := range f.RestoreQuarantine(context.Background(), batch) {
			require.NoError(t, err)
			require.True(t, r.Done, "%+v", r)
		}
	}
}

// treeWithout is every file and directory of a store, without the control
// directory, with what is in it.
func treeWithout(t testing.TB, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".mediabolt":
			return fs.SkipDir
		case e.IsDir():
			tree[name] = "directory"
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		tree[name] = string(data)
		return err
	}))
	return tree
}

// orphanName is a name that a blob could have.
func orphanName(n int) string { return fmt.Sprintf("s/c/a7f3f7-06h0aeyy8hrzvc6fkc554h%03d0.png", n) }

func under(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }

// messes are what a repair mends: each makes one, of a store with the references a
// and b to one blob and c to another.
var messes = []struct {
	name string
	make func(t *testing.T, dir, blob, c string)
	want engine.RepairAction
	twin bool // wants the bytes of a and b once more, in a blob of its own
}{
	{name: "orphan", want: engine.RepairQuarantine, make: func(t *testing.T, dir, _, _ string) { plant(orphanName(100), "x")(t, dir, "") }},
	{name: "orphan with a sidecar that tells nothing", want: engine.RepairQuarantine, make: func(t *testing.T, dir, _, _ string) {
		plant(orphanName(100), "x")(t, dir, "")
		plant(orphanName(100)+".meta", "y")(t, dir, "")
	}},
	{name: "sidecar without a blob", want: engine.RepairQuarantine, make: func(t *testing.T, dir, blob, _ string) {
		data, err := os.ReadFile(under(dir, blob+".meta"))
		require.NoError(t, err)
		plant(orphanName(100)+".meta", string(data))(t, dir, "")
	}},
	{name: "orphans here and there", want: engine.RepairQuarantine, make: func(t *testing.T, dir, _, _ string) {
		for i, place := range []string{"", "d/", "d/e/f/g/"} {
			plant(place+path.Base(orphanName(100+i)), place)(t, dir, "")
		}
	}},
	{name: "no sidecar", want: engine.RepairSidecar, make: func(t *testing.T, dir, blob, _ string) { require.NoError(t, os.Remove(under(dir, blob+".meta"))) }},
	{name: "empty sidecar", want: engine.RepairSidecar, make: func(t *testing.T, dir, blob, _ string) { truncate(0)(t, under(dir, blob+".meta")) }},
	{name: "damaged sidecar", want: engine.RepairSidecar, make: func(t *testing.T, dir, blob, _ string) { flip(40)(t, under(dir, blob+".meta")) }},
	{name: "directory for a sidecar", want: engine.RepairSidecar, make: func(t *testing.T, dir, blob, _ string) {
		require.NoError(t, os.Remove(under(dir, blob+".meta")))
		plant(blob+".meta/below", "x")(t, dir, "")
	}},
	{name: "another's sidecar", want: engine.RepairSidecar, make: func(t *testing.T, dir, blob, c string) {
		data, err := os.ReadFile(under(dir, c+".meta"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(under(dir, blob+".meta"), data, 0o600))
	}},
	{name: "renamed directory", want: engine.RepairHeal, make: func(t *testing.T, dir, blob, _ string) {
		require.NoError(t, os.Rename(under(dir, path.Dir(blob)), under(dir, "renamed")))
	}},
	{name: "damaged, and a twin", want: engine.RepairHeal, twin: true, make: func(t *testing.T, dir, blob, _ string) { flip(9)(t, under(dir, blob)) }},
	{name: "short, and a twin", want: engine.RepairHeal, twin: true, make: func(t *testing.T, dir, blob, _ string) { truncate(9)(t, under(dir, blob)) }},
	{name: "full directory in place of a blob, and a twin", want: engine.RepairHeal, twin: true, make: func(t *testing.T, dir, blob, _ string) {
		require.NoError(t, os.Remove(under(dir, blob)))
		plant(blob+"/below", "x")(t, dir, "")
	}},
}

// messy is a store in which one thing is wrong.
func messy(t *testing.T, dir string, twin bool) (f *engine.FileStore, config engine.FileStoreConfig, refs []*storage.StorageReference) {
	t.Helper()
	config = engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true}
	if twin {
		single := config
		single.EnableDeduplication = false
		f, err := engine.Open(context.Background(), single)
		require.NoError(t, err)
		mustStore(t, f, small, storage.MediaMetadata{SessionID: "twin"})
		require.NoError(t, f.Close())
	}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	refs = append(refs, mustStore(t, f, small, someIDs), mustStore(t, f, small, storage.MediaMetadata{SessionID: "b"}),
		mustStore(t, f, other, storage.MediaMetadata{SessionID: "c"}))
	gone := mustStore(t, f, small, someIDs)
	require.NoError(t, f.Delete(context.Background(), gone))
	require.NoError(t, f.Checkpoint(context.Background()))
	return f, config, refs
}

// Every mess is planned for without a change, mended, and found whole after that;
// what was moved comes back as it was.
func TestRepair(t *testing.T) {
	for _, m := range messes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			f, config, refs := messy(t, t.TempDir(), m.twin)
			defer func() { require.NoError(t, f.Close()) }()
			blob := refs[0].Metadata["path"]
			m.make(t, config.BaseDir, blob, refs[2].Metadata["path"])
			before, found := treeWithout(t, config.BaseDir), damage(t, f)
			require.NotEmpty(t, found)

			plan := mustPlan(t, f, anything)
			require.Equal(t, len(found), plan.Damage)
			require.Equal(t, before, treeWithout(t, config.BaseDir), "a plan changes nothing")
			require.Empty(t, quarantined(t, f))

			done := mustRepair(t, f, anything)
			require.NotZero(t, done[m.want], "%v", done)
			require.Empty(t, damage(t, f))
			for i, want := range [][]byte{small, small, other} {
				require.Equal(t, want, mustRetrieve(t, f, refs[i]))
			}
			require.Zero(t, mustPlan(t, f, anything).Damage)
			require.NoError(t, f.Close())
			f = mustOpen(t, config)
			require.Empty(t, damage(t, f))
			if m.want == engine.RepairHeal {
				return // nobody wants the damaged bytes over the good ones
			}
			restoreAll(t, f)
			require.Equal(t, before, treeWithout(t, config.BaseDir))
			require.Equal(t, found, damage(t, f))
			mustRepair(t, f, anything)
		})
	}
}

// A sidecar that was written anew has all that rebuilding needs, and goes on like
// another.
func TestSidecarWrittenAnewHasEveryReference(t *testing.T) {
	ctx := context.Background()
	f, config, refs := messy(t, t.TempDir(), false)
	defer func() { require.NoError(t, f.Close()) }()
	for range 600 { // more than a page
		refs = append(refs, mustStore(t, f, small, storage.MediaMetadata{UserID: "u", Labels: map[string]string{"a": "b"}}))
	}
	require.NoError(t, f.Checkpoint(ctx))
	sidecar := under(config.BaseDir, refs[0].Metadata["path"]+".meta")
	require.NoError(t, os.Remove(sidecar))
	require.Equal(t, map[engine.RepairAction]int{engine.RepairSidecar: 1}, mustRepair(t, f, anything))
	data, err := os.ReadFile(sidecar)
	require.NoError(t, err)
	for i, ref := range refs {
		if i != 2 {
			require.Equal(t, 1, strings.Count(string(data), ref.ID))
		}
	}
	require.NoError(t, f.Delete(ctx, refs[0]))
	mustStore(t, f, small, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	require.Empty(t, damage(t, f))

	// By then it is not what the repair wrote.
	items := quarantined(t, f)
	require.Len(t, items, 1)
	require.True(t, items[0].Written)
	for r, err := range f.RestoreQuarantine(ctx, items[0].Batch) {
		require.NoError(t, err)
		require.False(t, r.Done)
		require.Contains(t, r.Detail, "further lines")
	}
	require.Empty(t, damage(t, f))
}

// Orphans that a sidecar tells live references of stay for a rebuild, unless they
// are given up expressly.
func TestKnownOrphansStay(t *testing.T) {
	f, config, refs := messy(t, t.TempDir(), false)
	defer func() { require.NoError(t, f.Close()) }()
	// As if the index had come from a backup from before it was stored.
	elsewhere := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	g := mustOpen(t, elsewhere)
	forgotten := mustStore(t, g, shared, someIDs).Metadata["path"]
	require.NoError(t, g.Checkpoint(context.Background()))
	for _, suffix := range []string{"", ".meta"} {
		data, err := os.ReadFile(under(elsewhere.BaseDir, forgotten+suffix))
		require.NoError(t, err)
		plant(forgotten+suffix, string(data))(t, config.BaseDir, "")
	}
	plan := mustPlan(t, f, anything)
	require.Len(t, plan.Items, 1)
	require.Equal(t, engine.RepairNone, plan.Items[0].Action)
	require.Contains(t, plan.Items[0].Detail, "rebuilding the index")
	require.Zero(t, plan.Touches)
	require.Empty(t, mustRepair(t, f, anything))
	require.FileExists(t, under(config.BaseDir, forgotten))

	known := engine.RepairOptions{MaxShare: 100, KnownOrphans: true}
	require.Equal(t, map[engine.RepairAction]int{engine.RepairQuarantine: 1}, mustRepair(t, f, known))
	require.Empty(t, damage(t, f))
	require.Equal(t, small, mustRetrieve(t, f, refs[0]))
}

// References whose bytes are lost stay, unless they are given up expressly: then
// what is left of them is kept, and they are listed.
func TestDropOfWhatIsLost(t *testing.T) {
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			refs := []*storage.StorageReference{mustStore(t, f, victimBytes(), someIDs), mustStore(t, f, victimBytes(), someIDs)}
			mustStore(t, f, other, someIDs)
			require.NoError(t, f.Checkpoint(ctx))
			blob := refs[0].Metadata["path"]
			h.do(t, under(config.BaseDir, blob))

			plan := mustPlan(t, f, anything)
			require.Len(t, plan.Items, 1)
			require.Equal(t, engine.RepairNone, plan.Items[0].Action)
			require.EqualValues(t, 2, plan.Items[0].References)
			require.Contains(t, plan.Items[0].Detail, "--drop-lost")

			drop := engine.RepairOptions{MaxShare: 100, DropLost: true}
			require.Equal(t, map[engine.RepairAction]int{engine.RepairDrop: 1}, mustRepair(t, f, drop))
			require.Empty(t, damage(t, f))
			require.Equal(t, counted(other), held(t, f))
			for _, ref := range refs {
				_, err := f.Retrieve(ctx, ref)
				require.ErrorIs(t, err, storage.ErrNotFound)
				require.NotErrorIs(t, err, storage.ErrCorrupted)
			}
			lost, kept := []string{}, []string{}
			for _, item := range quarantined(t, f) {
				if item.Reference != "" {
					lost = append(lost, item.Reference)
				} else {
					kept = append(kept, item.Path)
				}
			}
			require.ElementsMatch(t, []string{refs[0].ID, refs[1].ID}, lost)
			require.Contains(t, kept, blob+".meta")
			if h.kind != storage.FindingMissing {
				require.Contains(t, kept, blob)
			}
			// The same bytes may come again, and the old ones back.
			again := mustStore(t, f, victimBytes(), someIDs)
			require.Equal(t, victimBytes(), mustRetrieve(t, f, again))
			restoreAll(t, f)
			require.FileExists(t, under(config.BaseDir, blob+".meta"))
			require.Equal(t, victimBytes(), mustRetrieve(t, f, again))
		})
	}
}

// A plan is looked at again before it is carried out: what was mended, deleted or
// brought meanwhile is left alone.
func TestRepairLooksAgain(t *testing.T) {
	ctx := context.Background()
	f, config, refs := messy(t, t.TempDir(), false)
	defer func() { require.NoError(t, f.Close()) }()
	blob, deleted := refs[0].Metadata["path"], refs[2].Metadata["path"]
	require.NoError(t, os.Remove(under(config.BaseDir, blob)))
	require.NoError(t, os.Remove(under(config.BaseDir, deleted+".meta")))
	plant(orphanName(100), "x")(t, config.BaseDir, "")
	plan := mustPlan(t, f, engine.RepairOptions{MaxShare: 100, DropLost: true})
	require.NoError(t, plan.Refusal)
	require.Equal(t, 3, plan.Touches)

	mustStore(t, f, small, someIDs)
	require.NoError(t, f.Delete(ctx, refs[2]))
	require.NoError(t, os.Remove(under(config.BaseDir, orphanName(100))))
	n := 0
	for result, err := range f.Repair(ctx, plan) {
		require.NoError(t, err)
		require.NoError(t, result.Err)
		require.False(t, result.Done, "%+v", result)
		require.NotEmpty(t, result.Detail)
		n++
	}
	require.Equal(t, 3, n)
	require.Equal(t, counted(small, small, small), held(t, f))
	require.Empty(t, damage(t, f))
	require.Empty(t, quarantined(t, f))
}

// copyIndex puts the index of one closed store into another.
func copyIndex(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"index.db", "index.sums", "log.0", "log.1"} {
		data, err := os.ReadFile(filepath.Join(from, ".mediabolt", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, ".mediabolt", name), data, 0o600))
	}
}

// failingWalk is a tree whose walk ends with an error.
type failingWalk struct{ engine.Blobs }

func (b failingWalk) Files(ctx context.Context) iter.Seq2[storage.TreeFile, error] {
	return func(yield func(storage.TreeFile, error) bool) {
		for file, err := range b.Blobs.Files(ctx) {
			if !yield(file, err) {
				return
			}
			yield(storage.TreeFile{}, fmt.Errorf("%w: forced", storage.ErrIO))
			return
		}
	}
}

// A repair is refused, and touches nothing, when the index cannot be right or the
// tree was not seen whole.
func TestRepairRefuses(t *testing.T) {
	ctx := context.Background()
	strange := func(t *testing.T, contents ...[]byte) string {
		dir := t.TempDir()
		f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
		require.NoError(t, err)
		for _, c := range contents {
			mustStore(t, f, c, someIDs)
		}
		require.NoError(t, f.Close())
		return dir
	}
	cases := []struct {
		name   string
		closed func(t *testing.T, dir string)
		share  float64 // percent; zero: everything is allowed
		seams  func(engine.Index, engine.Blobs) (engine.Index, engine.Blobs)
		says   string
	}{
		{name: "empty index", says: "new or empty", closed: func(t *testing.T, dir string) { copyIndex(t, strange(t), dir) }},
		{name: "index of another store", says: "another store's", closed: func(t *testing.T, dir string) { copyIndex(t, strange(t, shared, large), dir) }},
		{name: "index against itself", says: "contradicts itself", closed: func(t *testing.T, dir string) { editClosed(t, dir, dropFirst("refs")) }},
		{name: "damaged index", says: "contradicts itself", closed: func(t *testing.T, dir string) { editClosed(t, dir, emptyFirst("blobs")) }},
		{name: "walk that fails", says: "did not come to its end", seams: func(x engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) { return x, failingWalk{b} }},
		{name: "too much", share: 33, says: "33.3 %", closed: func(t *testing.T, dir string) { plant(orphanName(100), "x")(t, dir, "") }},
		{name: "too much by default", share: engine.DefaultMaxShare, says: "may touch 10 %", closed: func(t *testing.T, dir string) { plant(orphanName(100), "x")(t, dir, "") }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, config, _ := messy(t, t.TempDir(), false)
			require.NoError(t, f.Close())
			if c.closed != nil {
				c.closed(t, config.BaseDir)
			}
			before := treeWithout(t, config.BaseDir)
			if c.seams != nil {
				config = engine.WithSeams(config, c.seams)
			}
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			opts := engine.RepairOptions{MaxShare: 100, DropLost: true, KnownOrphans: true}
			switch c.share {
			case 0:
			case engine.DefaultMaxShare:
				opts.MaxShare = 0
			default:
				opts.MaxShare = c.share
			}
			plan, err := f.PlanRepair(ctx, opts)
			if err == nil {
				require.NotNil(t, plan.Refusal)
				err = plan.Refusal
				for result, err := range f.Repair(ctx, plan) {
					require.ErrorIs(t, err, storage.ErrRefused, "%+v", result)
				}
			}
			require.ErrorIs(t, err, storage.ErrRefused)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, before, treeWithout(t, config.BaseDir))
			require.Empty(t, quarantined(t, f))
		})
	}
	t.Run("plan of another store", func(t *testing.T) {
		f, _, _ := messy(t, t.TempDir(), false)
		g, _, _ := messy(t, t.TempDir(), false)
		for _, plan := range []*engine.RepairPlan{nil, {}, mustPlan(t, g, anything)} {
			for _, err := range f.Repair(ctx, plan) {
				require.ErrorIs(t, err, storage.ErrRefused)
			}
		}
		require.NoError(t, f.Close())
		require.NoError(t, g.Close())
	})
}

// A repair beside traffic harms none of it.
func TestRepairBesideTraffic(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	refs := map[string]*storage.StorageReference{}
	for i := range 8 {
		ref := mustStore(t, f, bytesOf(3000, byte(i)), someIDs)
		refs[ref.Metadata["path"]] = ref
	}
	require.NoError(t, f.Checkpoint(ctx))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				data := bytesOf(3000, byte(n%12))
				ref, err := storeBytes(f, data, i)
				if err == nil {
					err = f.Delete(ctx, ref)
				}
				if err != nil {
					t.Errorf("traffic: %v", err)
					return
				}
			}
		})
	}
	for round := range 20 {
		plant(orphanName(100+round), "x")(t, config.BaseDir, "")
		for name := range refs {
			require.NoError(t, os.WriteFile(under(config.BaseDir, name+".meta"), []byte("harm\n"), 0o600))
			break
		}
		plan := mustPlan(t, f, anything)
		require.NoError(t, plan.Refusal)
		for result, err := range f.Repair(ctx, plan) {
			require.NoError(t, err)
			require.NoError(t, result.Err)
		}
	}
	close(stop)
	wg.Wait()
	mustRepair(t, f, anything)
	require.Empty(t, damage(t, f))
	require.Len(t, blobFiles(t, config.BaseDir), 8)
	for _, ref := range refs {
		mustRetrieve(t, f, ref)
	}
}
