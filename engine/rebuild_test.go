package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// allRows is every row of a store's index, whole, but for the times of reading,
// which no sidecar has, and Ended, which counts tombstones that sidecars may lack.
type allRows struct {
	blobs    []storage.BlobRow
	refs     []storage.RefPair
	counters storage.Counters
	mode     storage.OrganizationMode
}

// rowsOf opens a store, reads all of its rows and closes it.
func rowsOf(t require.TestingT, config engine.FileStoreConfig) (all allRows) {
	ctx := context.Background()
	var index engine.Index
	f, err := engine.Open(ctx, engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		index = i
		return i, b
	}))
	require.NoError(t, err)
	all.blobs, err = index.Blobs(ctx, "", 1<<20)
	require.NoError(t, err)
	for i := range all.blobs {
		b := &all.blobs[i]
		if tellsOfEnded(t, filepath.Join(config.BaseDir, filepath.FromSlash(b.Path)+".meta")) {
			require.Positive(t, b.Ended, b.Path) // or an erasure would not look there
		}
		b.AccessedAt, b.Ended = time.Time{}, 0
	}
	more := false
	all.refs, _, more, err = index.Refs(ctx, storage.RefFilter{}, storage.UUID{}, 1<<20)
	require.NoError(t, err)
	require.False(t, more)
	for i := range all.refs {
		all.refs[i].Blob.AccessedAt, all.refs[i].Blob.Ended = time.Time{}, 0
	}
	all.counters, err = index.Counters(ctx)
	require.NoError(t, err)
	all.mode = index.Organization()
	require.NoError(t, f.Close())
	return all
}

// tellsOfEnded says whether a sidecar has a line of a reference and its tombstone.
func tellsOfEnded(t require.TestingT, name string) bool {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`"deleted":"([^"]+)"`).FindAllSubmatch(data, -1) {
		if bytes.Contains(data, fmt.Appendf(nil, `"id":%q`, m[1])) {
			return true
		}
	}
	return false
}

// indexHarm is what becomes of an index, by what was done to it.
var indexHarm = map[string]func(dir string) error{
	"nothing":        func(string) error { return nil },
	"index.db gone":  func(dir string) error { return os.Remove(filepath.Join(dir, "index.db")) },
	"index.db empty": func(dir string) error { return os.Truncate(filepath.Join(dir, "index.db"), 0) },
	"index.db cut short": func(dir string) error {
		return os.Truncate(filepath.Join(dir, "index.db"), 5*4096)
	},
	"index.db of zeros": func(dir string) error {
		info, err := os.Stat(filepath.Join(dir, "index.db"))
		return errors.Join(err, os.Truncate(filepath.Join(dir, "index.db"), 0), os.Truncate(filepath.Join(dir, "index.db"), info.Size()))
	},
	"meta pages flipped": func(dir string) error {
		return errors.Join(flipBit(filepath.Join(dir, "index.db"), 40), flipBit(filepath.Join(dir, "index.db"), 4096+40))
	},
	"index.db and index.sums gone": func(dir string) error {
		return errors.Join(os.Remove(filepath.Join(dir, "index.db")), os.Remove(filepath.Join(dir, "index.sums")))
	},
}

func flipBit(name string, at int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 4
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Close())
}

// mustRebuild rebuilds an index, without a finding of damage.
func mustRebuild(t require.TestingT, config engine.FileStoreConfig) engine.Rebuilt {
	result, err := engine.Rebuild(context.Background(), config, engine.RebuildOptions{Deep: true, Found: func(f storage.Finding) {
		require.NotEqual(t, storage.SeverityDamage, f.Severity, "%+v", f)
	}})
	require.NoError(t, err)
	return result
}

// TestRebuildRestoresEverything loses or damages the index of a store that lived
// through random operations and was closed, or killed, and rebuilds it twice.
func TestRebuildRestoresEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(dir, "store")
		require.NoError(rt, err)
		m := &machine{clock: newClock(), model: newModel()}
		m.config = engine.WithClock(engine.FileStoreConfig{BaseDir: base, Sync: engine.SyncNone}, m.clock.now)
		m.reopen(rt)
		defer func() {
			require.NoError(rt, errors.Join(m.store.Close(), os.RemoveAll(base), os.RemoveAll(base+" killed")))
		}()
		counted := map[string]bool{}
		rt.Repeat(map[string]func(*rapid.T){
			"Store": m.Store, "StoreReader": m.StoreReader, "Read": m.Read, "Delete": m.Delete, "Checkpoint": m.Checkpoint,
			"CloseAndReopen": m.CloseAndReopen, "AbandonAndReopen": m.AbandonAndReopen, "Hold": m.Hold, "Release": m.Release,
			"Retain": m.Retain, "Expire": m.Expire,
			"Revise": func(t *rapid.T) {
				id := m.drawRef(t)
				if counted[id] {
					t.Skip("is counted already")
				}
				require.NoError(t, m.store.SetCount(context.Background(), &storage.StorageReference{ID: id}, 1))
				counted[id] = true
				m.model.refs[id].revision++
			},
		})
		if rapid.Bool().Draw(rt, "killed") {
			// The control directory is copied first: what a checkpoint of this
			// moment does to the tree is then newer, as it may be after a kill.
			require.NoError(rt, copyTree(base, base+" killed"))
			require.NoError(rt, m.store.Close())
			m.config.BaseDir = base + " killed"
		} else {
			require.NoError(rt, m.store.Close())
		}
		m.config.Organization = ""
		want := rowsOf(rt, engine.FileStoreConfig{BaseDir: base, Sync: engine.SyncNone})
		harm := rapid.SampledFrom(slices.Sorted(maps.Keys(indexHarm))).Draw(rt, "harm")
		require.NoError(rt, indexHarm[harm](filepath.Join(m.config.BaseDir, ".mediabolt")))
		for range 2 {
			result := mustRebuild(rt, m.config)
			require.Equal(rt, want.counters.Refs, result.References)
			require.Equal(rt, want.counters.Blobs, result.Blobs)
			require.Zero(rt, result.Adopted)
			got := rowsOf(rt, m.config)
			if harm != "nothing" {
				got.mode = want.mode // nothing tells of one by which nothing was stored
			}
			require.Equal(rt, want, got)
		}
		m.store, err = engine.Open(context.Background(), m.config)
		require.NoError(rt, err)
		m.CompareAll(rt)
	})
}

// TestRebuildRestoresCountsAndMoves has references that count several, and blobs that
// were moved: by an erasure, after which nothing tells of what is gone, and by a
// reorganization; each in the middle of it and after it.
func TestRebuildRestoresCountsAndMoves(t *testing.T) {
	t.Parallel()
	for _, point := range []engine.FaultPoint{"", engine.FaultLinked, engine.FaultMoved, engine.FaultSettled} {
		t.Run("point "+string(point), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store"), Sync: engine.SyncNone, EnableDeduplication: true}
			setup(t, config, func(f *engine.FileStore) {
				erasable(t, f)
				ref := mustStore(t, f, []byte("counted"), storage.MediaMetadata{SessionID: "doomed"})
				require.NoError(t, f.SetCount(t.Context(), ref, 3))
				ref = mustStore(t, f, []byte("counted twice"), someIDs)
				require.NoError(t, f.SetCount(t.Context(), ref, 7))
				require.NoError(t, f.Delete(t.Context(), ref))
				mustStore(t, f, []byte("counted twice"), storage.MediaMetadata{SessionID: "doomed"})
			})
			c := &crash{point: point, from: config.BaseDir, copyDir: config.BaseDir + " killed"}
			config.Organization = storage.OrganizationByRun
			f, err := engine.Open(t.Context(), engine.WithFaults(config, c.fault))
			require.NoError(t, err)
			_, errErase := f.Erase(t.Context(), engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
			_, errMove := f.Reorganize(t.Context(), engine.ReorganizeOptions{})
			if point == "" {
				require.NoError(t, errors.Join(errErase, errMove))
				require.NoError(t, f.Checkpoint(t.Context()))
				require.NoError(t, copyTree(config.BaseDir, c.copyDir))
			} else {
				require.True(t, c.reached.Load())
			}
			require.NoError(t, errors.Join(f.Abandon(), c.copyErr))

			config.BaseDir = c.copyDir
			lost := config
			lost.BaseDir += " and lost"
			require.NoError(t, copyTree(config.BaseDir, lost.BaseDir))
			require.NoError(t, os.Remove(filepath.Join(lost.BaseDir, ".mediabolt", "index.db")))
			result := mustRebuild(t, lost)
			require.Zero(t, result.Adopted)
			// Blobs that the resumed erasure moves get paths that are made up anew.
			entries := func(config engine.FileStoreConfig) (all []engine.Entry) {
				f := mustOpen(t, config)
				require.Eventually(t, func() bool {
					return len(allEntries(t, f, engine.Query{SessionID: "doomed"})) == 0
				}, time.Minute, 10*time.Millisecond)
				require.NoError(t, f.Checkpoint(t.Context()))
				require.Empty(t, damage(t, f))
				for _, e := range allEntries(t, f, engine.Query{}) {
					require.Equal(t, e.Size, int64(len(mustRetrieve(t, f, &e.Reference))))
					e.Path, e.Reference.Metadata["path"], e.AccessedAt = "", "", time.Time{}
					all = append(all, e)
				}
				return all
			}
			require.Equal(t, entries(config), entries(lost))
		})
	}
}

// TestRebuildByDefaultIsSaid opens stores whose index is lost or damaged.
func TestRebuildByDefaultIsSaid(t *testing.T) {
	for harm, do := range indexHarm {
		if harm == "nothing" {
			continue
		}
		t.Run(harm, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
			setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
			require.NoError(t, do(filepath.Join(config.BaseDir, ".mediabolt")))
			_, err := engine.Open(context.Background(), config)
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.ErrorContains(t, err, "mediabolt rebuild")
			config.RebuildIndex = true
			f := mustOpen(t, config)
			require.Equal(t, counted(small), held(t, f))
			aside, err := filepath.Glob(filepath.Join(config.BaseDir, ".mediabolt", "index.damaged-*"))
			require.NoError(t, err)
			require.Len(t, aside, 1)
		})
	}
}

// crashAt answers an error at the nth fault point it comes to, after it has kept
// what is on disk there.
type crashAt struct {
	mu   sync.Mutex // guards the rest while a rebuild runs
	n    int
	from string
	to   string
	err  error
	done bool
	at   engine.FaultPoint
}

func (c *crashAt) fault(_ context.Context, p engine.FaultPoint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n != 0 {
		return nil
	}
	c.err, c.done, c.at = copyTree(c.from, c.to), true, p
	return errCrash
}

// TestRebuildKilledAtEveryPoint kills a rebuild at one point after another. What
// is left then opens or is rebuilt, with nothing lost; the old index is kept as it
// was.
func TestRebuildKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	origin := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
	var want allRows
	setup(t, origin, func(f *engine.FileStore) {
		mustStore(t, f, small, someIDs)
		mustStore(t, f, small, storage.MediaMetadata{SessionID: "of another", Labels: map[string]string{"a": "b"}})
		mustStore(t, f, other, someIDs)
	})
	want = rowsOf(t, origin)
	index := filepath.Join(origin.BaseDir, ".mediabolt", "index.db")
	require.NoError(t, flipBit(index, 40))
	require.NoError(t, flipBit(index, 4096+40))
	for _, name := range []string{"holds", "erasures", "quarantine/a"} {
		name = filepath.Join(origin.BaseDir, ".mediabolt", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(name), 0o600))
	}
	damaged, err := os.ReadFile(index)
	require.NoError(t, err)
	before := treeOf(t, origin.BaseDir)

	points := map[engine.FaultPoint]int{}
	for n := 1; ; n++ {
		config := origin
		config.BaseDir = filepath.Join(t.TempDir(), "store")
		require.NoError(t, copyTree(origin.BaseDir, config.BaseDir))
		c := &crashAt{n: n, from: config.BaseDir, to: config.BaseDir + " killed"}
		_, err := engine.Rebuild(context.Background(), engine.WithFaults(config, c.fault), engine.RebuildOptions{})
		require.NoError(t, c.err)
		if !c.done {
			require.NoError(t, err)
			break
		}
		require.ErrorIs(t, err, errCrash)
		points[c.at]++
		for _, killed := range []string{config.BaseDir, c.to} {
			config.BaseDir = killed
			// An opening goes on where the new index was whole.
			f, err := engine.Open(context.Background(), config)
			if err == nil {
				require.Contains(t, []engine.FaultPoint{engine.FaultSetAside, engine.FaultPlaced, engine.FaultReplaced}, c.at)
				require.NoError(t, f.Close())
			}
			if err != nil || n%2 == 0 {
				mustRebuild(t, config)
			}
			require.Equal(t, want, rowsOf(t, config), "%s, point %d (%s)", killed, n, c.at)
			require.NoDirExists(t, filepath.Join(killed, ".mediabolt", "rebuild"))
			aside, err := filepath.Glob(filepath.Join(killed, ".mediabolt", "index.damaged-*", "index.db"))
			require.NoError(t, err)
			require.NotEmpty(t, aside)
			kept, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			require.True(t, bytes.Equal(damaged, kept), "the damaged index at point %d (%s)", n, c.at)
			after := treeOf(t, killed)
			for name, sum := range before {
				if filepath.Dir(name) == "/.mediabolt" && name != "/.mediabolt/holds" && name != "/.mediabolt/erasures" && name != "/.mediabolt/reserve" {
					continue // of the index
				}
				require.Equal(t, sum, after[name], name)
			}
			require.NoError(t, os.RemoveAll(killed))
		}
	}
	require.Equal(t, 2, points[engine.FaultRestored])
	require.Equal(t, 1, points[engine.FaultRebuilt])
	require.GreaterOrEqual(t, points[engine.FaultSetAside], 6)
	require.GreaterOrEqual(t, points[engine.FaultPlaced], 3)
	require.Equal(t, 2, points[engine.FaultReplaced])
}

// TestRebuildRefusesAStoreInUse has a store open, with an index or without.
func TestRebuildRefusesAStoreInUse(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, LockTimeout: -1}
	f := mustOpen(t, config)
	mustStore(t, f, small, someIDs)
	_, err := engine.Rebuild(t.Context(), config, engine.RebuildOptions{})
	require.ErrorIs(t, err, storage.ErrLocked)
	require.ErrorContains(t, err, config.BaseDir)
	require.NoError(t, f.Close())
	mustRebuild(t, config)

	_, err = engine.Rebuild(t.Context(), engine.FileStoreConfig{BaseDir: t.TempDir()}, engine.RebuildOptions{})
	require.ErrorIs(t, err, storage.ErrNoStore)
	_, err = engine.Rebuild(t.Context(), engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "none")}, engine.RebuildOptions{})
	require.ErrorIs(t, err, storage.ErrNoStore)
	_, err = engine.Rebuild(t.Context(), engine.FileStoreConfig{}, engine.RebuildOptions{})
	require.ErrorIs(t, err, storage.ErrInvalidConfig)
}

// TestRebuildIsTheOnlyOneMeanwhile opens a store that is being rebuilt.
func TestRebuildIsTheOnlyOneMeanwhile(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, LockTimeout: -1}
	setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
	tries := 0
	_, err := engine.Rebuild(t.Context(), engine.WithFaults(config, func(context.Context, engine.FaultPoint) error {
		tries++
		_, err := engine.Open(context.Background(), config)
		require.ErrorIs(t, err, storage.ErrLocked)
		_, err = engine.Rebuild(context.Background(), config, engine.RebuildOptions{})
		require.ErrorIs(t, err, storage.ErrLocked)
		return nil
	}), engine.RebuildOptions{})
	require.NoError(t, err)
	require.Positive(t, tries)
}

// foundBy rebuilds and returns what was found.
func foundBy(t testing.TB, config engine.FileStoreConfig, deep bool) (engine.Rebuilt, []storage.Finding) {
	t.Helper()
	var found []storage.Finding
	result, err := engine.Rebuild(t.Context(), config, engine.RebuildOptions{Deep: deep, Found: func(f storage.Finding) { found = append(found, f) }})
	require.NoError(t, err)
	return result, found
}

func kinds(found []storage.Finding) (kinds []storage.FindingKind) {
	for _, f := range found {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

// loseIndex removes an index with its log.
func loseIndex(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"index.db", "index.sums", "log.0", "log.1"} {
		require.NoError(t, os.Remove(filepath.Join(dir, ".mediabolt", name)))
	}
}

// TestRebuildAdoptsWhatHasNoSidecar goes by the path alone.
func TestRebuildAdoptsWhatHasNoSidecar(t *testing.T) {
	for _, mode := range storage.OrganizationModes() {
		t.Run(string(mode), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true, Organization: mode}
			var ref *storage.StorageReference
			setup(t, config, func(f *engine.FileStore) {
				ref = mustStore(t, f, small, storage.MediaMetadata{SessionID: "a/b", ConversationID: "..", RunID: "run 1", UserID: "u"})
			})
			blob := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
			require.NoError(t, os.Remove(blob+".meta"))
			foreign := filepath.Join(filepath.Dir(blob), "foreign.txt")
			require.NoError(t, os.WriteFile(foreign, []byte("foreign"), 0o600))
			loseIndex(t, config.BaseDir)
			config.Organization = ""
			result, found := foundBy(t, config, true)
			require.Equal(t, []storage.FindingKind{storage.FindingIndex, storage.FindingAdopted}, kinds(found))
			require.EqualValues(t, 1, result.Adopted)
			require.EqualValues(t, 1, result.Foreign)
			require.Empty(t, result.SetAside)
			f := mustOpen(t, config)
			e := mustStat(t, f, &storage.StorageReference{ID: ref.ID})
			require.NoError(t, wantBytes(f, ref, small))
			want := map[storage.OrganizationMode]storage.MediaMetadata{
				storage.OrganizationFlat:           {},
				storage.OrganizationByConversation: {ConversationID: ".."},
				storage.OrganizationBySession:      {SessionID: "a/b", ConversationID: ".."},
				storage.OrganizationByRun:          {SessionID: "a/b", ConversationID: "..", RunID: "run 1"},
			}[mode]
			want.CreatedAt = e.Metadata.CreatedAt
			require.Equal(t, want, e.Metadata)
			require.WithinDuration(t, ref.CreatedAt, e.Metadata.CreatedAt, time.Second)
			require.Equal(t, "text/plain; charset=utf-8", e.MimeType)
			require.Equal(t, string(mode), e.Reference.Metadata["org"])
			require.Empty(t, damage(t, f), "the opening has written the sidecar")
			require.FileExists(t, foreign)
			require.NoError(t, f.Close())
			again := rowsOf(t, config)
			loseIndex(t, config.BaseDir)
			result, _ = foundBy(t, config, true)
			require.Zero(t, result.Adopted)
			require.Equal(t, again, rowsOf(t, config))
		})
	}
}

// TestRebuildReportsDamage loses and damages blobs and sidecars.
func TestRebuildReportsDamage(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true}
	path := func(ref *storage.StorageReference) string {
		return filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
	}
	for _, test := range []struct {
		name string
		harm func(t *testing.T, first, second *storage.StorageReference) error // of shared and small
		deep bool
		want []storage.FindingKind
		kept int64 // references
	}{
		{name: "a blob gone", want: []storage.FindingKind{storage.FindingMissing, storage.FindingMissing}, kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error { return os.Remove(path(first)) }},
		{name: "a blob cut short", want: []storage.FindingKind{storage.FindingSize, storage.FindingSize}, kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error { return os.Truncate(path(first), 10) }},
		{name: "a blob flipped, deep", deep: true, want: []storage.FindingKind{storage.FindingChecksum, storage.FindingChecksum}, kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error { return flipBit(path(first), 10) }},
		{name: "a blob flipped, not deep", kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error { return flipBit(path(first), 10) }},
		{name: "the line of a further reference damaged", want: []storage.FindingKind{storage.FindingSidecar}, kept: 2,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error {
				info, err := os.Stat(path(first) + ".meta")
				return errors.Join(err, flipBit(path(first)+".meta", info.Size()-30))
			}},
		{name: "the first line damaged", want: []storage.FindingKind{storage.FindingSidecar, storage.FindingAdopted}, kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error { return flipBit(path(first)+".meta", 30) }},
		{name: "the sidecar of another blob", want: []storage.FindingKind{storage.FindingSidecar, storage.FindingAdopted}, kept: 2,
			harm: func(_ *testing.T, first, second *storage.StorageReference) error {
				return errors.Join(os.Remove(path(first)+".meta"), copySparse(path(second)+".meta", path(first)+".meta"))
			}},
		{name: "a copy", want: []storage.FindingKind{storage.FindingOrphan}, kept: 3,
			harm: func(_ *testing.T, first, _ *storage.StorageReference) error {
				to := filepath.Join(config.BaseDir, "zzz copy", filepath.Base(path(first)))
				return errors.Join(os.Mkdir(filepath.Dir(to), 0o700), os.Link(path(first), to), os.Link(path(first)+".meta", to+".meta"))
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config.BaseDir = t.TempDir()
			var refs [3]*storage.StorageReference
			setup(t, config, func(f *engine.FileStore) {
				refs = [3]*storage.StorageReference{mustStore(t, f, shared, someIDs), mustStore(t, f, small, someIDs), mustStore(t, f, shared, someIDs)}
			})
			require.NoError(t, os.Remove(filepath.Join(config.BaseDir, ".mediabolt", "index.db")))
			for _, name := range []string{"log.0", "log.1"} {
				require.NoError(t, os.Truncate(filepath.Join(config.BaseDir, ".mediabolt", name), 0))
			}
			require.NoError(t, test.harm(t, refs[0], refs[1]))
			files := blobFiles(t, config.BaseDir)
			result, found := foundBy(t, config, test.deep)
			require.ElementsMatch(t, test.want, kinds(found)[1:], "%+v", found) // after what tells that the log is of no use
			require.Equal(t, test.kept, result.References)
			require.Equal(t, files, blobFiles(t, config.BaseDir), "the tree is left as it is")
			all := rowsOf(t, config)
			require.EqualValues(t, test.kept, all.counters.Refs)
			result, _ = foundBy(t, config, test.deep)
			require.Equal(t, test.kept, result.References)
			require.Equal(t, all, rowsOf(t, config), "a second rebuild")
		})
	}
}

// lossyIndex drops an addition, as an index with a fault would.
type lossyIndex struct {
	engine.Index
	dropped *atomic.Bool
}

func (x lossyIndex) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	if x.dropped.CompareAndSwap(false, true) {
		return add.Blob, nil
	}
	return x.Index.Add(ctx, add)
}

// TestRebuildChecksBeforeItReplaces has an index that loses a reference.
func TestRebuildChecksBeforeItReplaces(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, small, someIDs)
		mustStore(t, f, other, someIDs)
	})
	want := rowsOf(t, config)
	lossy := config
	var dropped atomic.Bool
	lossy.OpenIndex = func(ctx context.Context, c engine.IndexConfig) (engine.Index, error) {
		x, err := boltindex.Open(ctx, boltindex.Config(c))
		return lossyIndex{x, &dropped}, err
	}
	_, err := engine.Rebuild(t.Context(), lossy, engine.RebuildOptions{})
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.True(t, dropped.Load())
	require.Equal(t, want, rowsOf(t, config), "the old index is in place")
	require.NoDirExists(t, filepath.Join(config.BaseDir, ".mediabolt", "rebuild"))
}

// TestRebuildAdoptsWhatIsStaged loses index and log of a store that was killed
// between a commit and the publish.
func TestRebuildAdoptsWhatIsStaged(t *testing.T) {
	for _, dedup := range []bool{false, true} {
		t.Run(fmt.Sprintf("dedup=%v", dedup), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store"), Sync: engine.SyncNone, EnableDeduplication: dedup}
			c := &crash{point: engine.FaultCommitted, from: config.BaseDir, copyDir: config.BaseDir + " killed"}
			f, err := engine.Open(t.Context(), engine.WithFaults(config, c.fault))
			require.NoError(t, err)
			_, err = f.Store(t.Context(), content(small), someIDs)
			require.ErrorIs(t, err, errCrash)
			require.NoError(t, errors.Join(f.Abandon(), c.copyErr))
			config.BaseDir = c.copyDir

			// With the log nothing is lost.
			logged := config
			logged.BaseDir += " with its log"
			require.NoError(t, copyTree(config.BaseDir, logged.BaseDir))
			require.NoError(t, os.Remove(filepath.Join(logged.BaseDir, ".mediabolt", "index.db")))
			result := mustRebuild(t, logged)
			require.EqualValues(t, 1, result.Recovered)
			f = mustOpen(t, logged)
			for e, err := range f.List(t.Context(), engine.Query{SessionID: someIDs.SessionID}) {
				require.NoError(t, err)
				require.NoError(t, wantBytes(f, &e.Reference, small))
			}
			require.EqualValues(t, 1, mustStats(t, f).References)

			loseIndex(t, config.BaseDir)
			result, found := foundBy(t, config, false)
			require.Equal(t, []storage.FindingKind{storage.FindingIndex, storage.FindingAdopted}, kinds(found))
			require.EqualValues(t, 1, result.Adopted)
			f = mustOpen(t, config)
			require.Equal(t, counted(small), held(t, f))
			require.Empty(t, damage(t, f))
		})
	}
}

// TestRebuildProgress is told of a rate, and of a context that ends.
func TestRebuildProgress(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	setup(t, config, func(f *engine.FileStore) {
		for i := range 20 {
			mustStore(t, f, bytesOf(100, byte(i)), someIDs)
		}
	})
	told := map[engine.RebuildStep]engine.RebuildProgress{}
	_, err := engine.Rebuild(t.Context(), config, engine.RebuildOptions{Progress: func(p engine.RebuildProgress) { told[p.Step] = p }})
	require.NoError(t, err)
	for step, total := range map[engine.RebuildStep]int64{engine.RebuildCount: 0, engine.RebuildRestore: 20, engine.RebuildCheck: 20} {
		require.Equal(t, total, told[step].Total, step)
	}
	last := told[engine.RebuildRestore]
	require.EqualValues(t, 20, last.Done)
	require.EqualValues(t, 20, last.References)
	require.Positive(t, last.PerSecond())

	want := rowsOf(t, config)
	before := treeOf(t, config.BaseDir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = engine.Rebuild(ctx, config, engine.RebuildOptions{Progress: func(engine.RebuildProgress) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, treeOf(t, config.BaseDir), "an interrupted rebuild leaves nothing")
	require.Equal(t, want, rowsOf(t, config))
}

// TestRebuildWithoutControlDirectory has nothing but blobs and sidecars.
func TestRebuildWithoutControlDirectory(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, EnableDeduplication: true, Organization: storage.OrganizationByRun}
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, small, someIDs)
		mustStore(t, f, small, storage.MediaMetadata{UserID: "u"})
	})
	want := rowsOf(t, config)
	require.NoError(t, os.RemoveAll(filepath.Join(config.BaseDir, ".mediabolt")))
	config.Organization = ""
	foundBy(t, config, false)
	require.Equal(t, want, rowsOf(t, config))
	require.NoError(t, fs.WalkDir(os.DirFS(config.BaseDir), ".mediabolt", func(_ string, _ fs.DirEntry, err error) error { return err }))
}
