package boltindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// compactFiles are those of an index at rest.
var compactFiles = []string{"index.db", "index.sums", "log.0", "log.1", "reserve"}

func filesIn(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func mustCompact(t *testing.T, x *Index) storage.Compaction {
	t.Helper()
	c, err := x.Compact(t.Context(), false, nil)
	require.NoError(t, err)
	return c
}

// refsOf is which of the references of refOf an index has.
func refsOf(t *testing.T, x *Index, upTo int) map[int]bool {
	t.Helper()
	have := map[int]bool{}
	for i := 1; i < upTo; i++ { // 0 is no UUID
		u := refOf(i)
		_, _, err := x.Ref(context.Background(), storage.ID{Hash: [3]byte{2: u[15]}, UUID: u})
		if err == nil {
			have[i] = true
		} else {
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
	}
	return have
}

func mustVerify(t *testing.T, x *Index) {
	t.Helper()
	findings, err := x.Verify(context.Background())
	require.NoError(t, err)
	require.Empty(t, findings)
}

func TestCompactEmpty(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	for range 3 {
		mustCompact(t, x)
		mustVerify(t, x)
	}
	fillRefs(t, x, 1, 11)
	require.NoError(t, x.Close())
	x = indexOf(t, dir)
	require.Len(t, refsOf(t, x, 20), 10)
	mustVerify(t, x)
	require.NoError(t, x.Close())
	require.Equal(t, compactFiles, filesIn(t, dir))
}

// After nine references in ten are gone, so are nine tenths of the file.
func TestCompactGivesRoomBack(t *testing.T) {
	const refs = 100_000
	dir := t.TempDir()
	x := indexOf(t, dir)
	inParallel(refs, func(i int) { addSmall(t, x, i+1) })
	settleAll(t, x)
	full := mustCompact(t, x).After
	inParallel(refs, func(i int) {
		if i%10 != 0 {
			u := smallRef(i + 1)
			if _, err := x.Remove(context.Background(), storage.ID{Hash: [3]byte{2: u[15]}, UUID: u}); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
	})
	settleAll(t, x)
	plan, err := x.Compact(t.Context(), true, nil)
	require.NoError(t, err)
	require.Zero(t, plan.Duration)
	require.Equal(t, plan.Before-plan.Free, plan.After)
	var told int64
	done, err := x.Compact(t.Context(), false, func(at, total int64) {
		require.LessOrEqual(t, told, at)
		require.LessOrEqual(t, at, total)
		told = at
	})
	require.NoError(t, err)
	require.Equal(t, done.Before-done.Free, told)
	t.Logf("full %d, before %d, after %d, planned %d", full, done.Before, done.After, plan.After)
	require.Less(t, done.After, full*15/100)
	require.LessOrEqual(t, done.After, done.Need)
	mustVerify(t, x)
	require.NoError(t, x.Close())
	x = indexOf(t, dir)
	c, err := x.Counters(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, refs/10, c.Refs)
	mustVerify(t, x)
	require.NoError(t, x.Close())
}

// settleAll pays all debt.
func settleAll(t testing.TB, x *Index) {
	t.Helper()
	debt, err := x.Debt(t.Context())
	require.NoError(t, err)
	require.NoError(t, x.Settle(t.Context(), debt))
}

func inParallel(n int, do func(i int)) {
	const workers = 64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	all.Wait()
}

func smallRef(i int) storage.UUID {
	return storage.UUID{0: byte(i >> 16), 1: byte(i >> 8), 2: byte(i), 6: 0x70}
}

func addSmall(t testing.TB, x *Index, i int) {
	u := smallRef(i)
	digest := storage.Digest{0: byte(i * 31), 1: byte(i >> 8), 2: byte(i >> 16), 31: byte(i)}
	_, err := x.Add(context.Background(), &storage.Addition{
		Ref:    storage.RefRow{UUID: u, Blob: storage.DigestKey(digest), Metadata: storage.MediaMetadata{SessionID: fmt.Sprint(i % 997)}},
		Blob:   storage.BlobRow{Key: storage.DigestKey(digest), Digest: digest, Path: fmt.Sprintf("000000-%s.png", u), Organization: storage.OrganizationFlat, Size: 1},
		Staged: true,
	})
	if err != nil {
		t.Errorf("add: %v", err)
	}
}

// Nothing is lost or comes back under stores, removals, reads, lists, checks and
// flushes beside several compactions.
func TestCompactBesideAll(t *testing.T) {
	const workers, each = 8, 400
	dir := t.TempDir()
	x := indexOf(t, dir)
	x.batch = 32 << 10
	var mu sync.Mutex // guards live
	live := map[int]bool{}
	var stop atomic.Bool
	var others, writers sync.WaitGroup
	other := func(what string, do func() error) {
		others.Go(func() {
			for !stop.Load() {
				if err := do(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	ctx := context.Background()
	other("flush", func() error { time.Sleep(5 * time.Millisecond); return x.flush() })
	other("refs", func() error {
		_, _, _, err := x.Refs(ctx, storage.RefFilter{SessionID: "3"}, storage.UUID{}, 100)
		return err
	})
	other("blobs", func() error { _, err := x.Blobs(ctx, "", 100); return err })
	other("size", func() error { _, err := x.Size(ctx); return err })
	other("verify", func() error {
		findings, err := x.Verify(ctx)
		if len(findings) > 0 {
			t.Errorf("findings beside compactions: %v", findings)
		}
		return err
	})
	var compactions atomic.Int64
	other("compact", func() error { _, err := x.Compact(ctx, false, nil); compactions.Add(1); return err })
	for w := range workers {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 0))
			var mine []int
			for n := range each {
				i := w*each + n + 1
				if err := addRef(x, i); err != nil {
					t.Errorf("add: %v", err)
					return
				}
				mine = append(mine, i)
				if random.IntN(3) == 0 {
					at := random.IntN(len(mine))
					u := refOf(mine[at])
					if removal, err := x.Remove(ctx, storage.ID{Hash: [3]byte{2: u[15]}, UUID: u}); err != nil || !removal.Found {
						t.Errorf("remove: %+v, %v", removal, err)
					}
					mine = slices.Delete(mine, at, at+1)
				}
				if len(mine) == 0 {
					continue
				}
				u := refOf(mine[random.IntN(len(mine))])
				if _, _, err := x.Ref(ctx, storage.ID{Hash: [3]byte{2: u[15]}, UUID: u}); err != nil {
					t.Errorf("a reference that is there: %v", err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, i := range mine {
				live[i] = true
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	others.Wait()
	require.Greater(t, compactions.Load(), int64(2))
	require.Equal(t, live, refsOf(t, x, workers*each+1))
	mustVerify(t, x)
	require.NoError(t, x.Close())
	x = indexOf(t, dir)
	require.Equal(t, live, refsOf(t, x, workers*each+1))
	mustVerify(t, x)
	require.NoError(t, x.Close())
	require.Equal(t, compactFiles, filesIn(t, dir))
}

// Rows that change after they were copied are as they were changed last, and so are
// rows that are copied after.
func TestCompactFollowsChanges(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	x.batch = 16 << 10
	const first = 1000
	live := map[int]bool{}
	fillRefs(t, x, 1, first)
	for i := 1; i < first; i++ {
		live[i] = true
	}
	random := rand.New(rand.NewPCG(1, 0))
	next, batches := first, 0
	_, err := x.Compact(t.Context(), false, func(int64, int64) {
		batches++
		for range 3 {
			i := 1 + random.IntN(next-1)
			if live[i] {
				removeRef(t, x, i)
				delete(live, i)
			} else {
				require.NoError(t, addRef(x, i))
				live[i] = true
			}
		}
		require.NoError(t, addRef(x, next))
		live[next] = true
		next++
		if batches%2 == 0 && batches < 20 { // the last batches find nothing new
			require.NoError(t, x.flush())
		}
	})
	require.NoError(t, err)
	require.Greater(t, batches, 20)
	require.NoError(t, addRef(x, next))
	live[next] = true
	next++
	require.Equal(t, live, refsOf(t, x, next))
	mustVerify(t, x)
	killed := filepath.Join(t.TempDir(), "killed")
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
	require.NoError(t, x.Close())
	for _, dir := range []string{dir, killed} {
		x = indexOf(t, dir)
		require.Equal(t, live, refsOf(t, x, next))
		mustVerify(t, x)
		require.NoError(t, x.Close())
	}
}

// crashed is what a crash has left at a step, and what was acknowledged by then.
type crashed struct {
	step compactStep
	dir  string
	live map[int]bool
}

// crashedFollows is how often a compaction follows in compactWithCrashes: twice in any
// case, and once for what is flushed then.
const crashedFollows = 3

// compactWithCrashes compacts an index that changes at every step, and copies it there.
func compactWithCrashes(t *testing.T) (list []crashed) {
	t.Helper()
	dir := t.TempDir()
	x := indexOf(t, dir)
	const first = 600
	live := map[int]bool{}
	fillRefs(t, x, 1, first)
	for i := 1; i < first; i++ {
		if live[i] = true; i%3 == 0 {
			removeRef(t, x, i)
			delete(live, i)
		}
	}
	next, follows := first, 0
	x.passed = func(step compactStep) {
		keep := func() {
			at := filepath.Join(t.TempDir(), "crashed")
			require.NoError(t, os.CopyFS(at, os.DirFS(dir)))
			list = append(list, crashed{step, at, maps.Clone(live)})
		}
		keep()
		// Flushes are kept out from stepCommitted on; changes are not.
		fillRefs(t, x, next, next+20)
		for i := next; i < next+20; i++ {
			live[i] = true
		}
		gone := slices.Min(slices.Collect(maps.Keys(live)))
		removeRef(t, x, gone)
		delete(live, gone)
		next += 20
		keep()
		if step == stepFollowed {
			follows++
		}
		if step == stepBegun || step == stepCopied || step == stepSealed || step == stepFollowed && follows < crashedFollows {
			require.NoError(t, x.flush())
			keep()
		}
	}
	mustCompact(t, x)
	x.passed = nil
	require.Equal(t, live, refsOf(t, x, next))
	mustVerify(t, x)
	require.NoError(t, x.Close())
	return list
}

func TestCompactCrashes(t *testing.T) {
	list := compactWithCrashes(t)
	// Where the flusher comes by, the compaction follows once more.
	require.GreaterOrEqual(t, len(list), (7+crashedFollows)*2+3+crashedFollows-1)
	for n, c := range list {
		t.Run(fmt.Sprintf("%02d %s", n, c.step), func(t *testing.T) {
			for range 2 { // what the first opening makes of it holds for the second
				var log bytes.Buffer
				x := loggedIndex(t, c.dir, &log)
				require.NotContains(t, log.String(), "made anew", "sums of another file")
				require.Equal(t, c.live, refsOf(t, x, 2000))
				mustVerify(t, x)
				require.NoError(t, x.Close())
				require.Equal(t, compactFiles, filesIn(t, c.dir))
			}
		})
	}
}

// Sums of one file never judge another, in whatever order a power cut has left the
// names: they are made anew.
func TestCompactSumsOfAnotherFile(t *testing.T) {
	list := compactWithCrashes(t)
	at := func(step compactStep) string {
		return list[slices.IndexFunc(list, func(c crashed) bool { return c.step == step })].dir
	}
	before, after := at(stepCommitted), at(stepReplaced)
	live := list[slices.IndexFunc(list, func(c crashed) bool { return c.step == stepReplaced })].live
	move := func(t *testing.T, from, to, name string) {
		data, err := os.ReadFile(filepath.Join(from, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), data, 0o600))
	}
	for what, mix := range map[string]func(t *testing.T, dir string){
		"new file, old sums": func(t *testing.T, dir string) { move(t, before, dir, sumsName) },
		"new file, no sums":  func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, sumsName))) },
		"old file, new sums": func(t *testing.T, dir string) { move(t, before, dir, fileName) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "mixed")
			require.NoError(t, os.CopyFS(dir, os.DirFS(after)))
			mix(t, dir)
			var log bytes.Buffer
			x := loggedIndex(t, dir, &log)
			require.Contains(t, log.String(), "made anew")
			require.Equal(t, live, refsOf(t, x, 2000))
			mustVerify(t, x)
			require.NoError(t, x.Close())
		})
	}
}

func loggedIndex(t *testing.T, dir string, log *bytes.Buffer) *Index {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	x, err := Open(context.Background(), Config{Root: root, NoSync: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	return x
}

// A second opener gets the lock neither of the old file nor of the new one.
func TestCompactKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 0, 100)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	var stop atomic.Bool
	var all sync.WaitGroup
	defer all.Wait()
	defer stop.Store(true)
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				if _, err := Open(context.Background(), Config{Root: root}); !errors.Is(err, storage.ErrLocked) {
					t.Errorf("second opener: %v", err)
					return
				}
			}
		})
	}
	for range 20 {
		mustCompact(t, x)
	}
	stop.Store(true)
	all.Wait()

	// One that has opened the file by its name before, and gets its lock after.
	old, err := root.OpenFile(fileName, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, old.Close()) }()
	require.False(t, tryLock(old))
	mustCompact(t, x)
	require.True(t, tryLock(old))
	require.ErrorIs(t, x.checkLocked(fileName, old), errReplaced)
	require.NoError(t, x.Close())
}

// One reads on in the old file, which is closed after him.
func TestCompactLeavesReadersTheOldFile(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	markMode(t, x, "before")
	require.NoError(t, x.flush())
	old := x.bolt
	x.layersMu.RLock()
	held, err := x.hold()
	x.layersMu.RUnlock()
	require.NoError(t, err)
	mustCompact(t, x)
	markMode(t, x, "after")
	require.NoError(t, x.flush())
	value, err := held.state.get(bucketMeta, keyOrganization)
	require.NoError(t, err)
	require.Equal(t, "before", string(value))
	require.NoError(t, held.release())
	closed := func() bool { _, err := old.file.Stat(); return errors.Is(err, fs.ErrClosed) }
	require.Eventually(t, closed, 10*time.Second, time.Millisecond)
	value, err = x.row(bucketMeta, keyOrganization)
	require.NoError(t, err)
	require.Equal(t, "after", string(value))
	markMode(t, x, string(storage.OrganizationBySession))
	require.NoError(t, x.Close())
}

// Changes go on while the files are swapped, also where the segment of the log is
// full: the other one's rows are in both files.
func TestCompactSwapLetsChangesOn(t *testing.T) {
	for _, at := range []compactStep{stepCommitted, stepRenamed, stepDurable, stepReplaced} {
		t.Run(string(at), func(t *testing.T) {
			dir := t.TempDir()
			x := indexOf(t, dir)
			fillRefs(t, x, 1, 101)
			killed := filepath.Join(t.TempDir(), "killed")
			x.passed = func(step compactStep) {
				if step != at {
					return
				}
				before := x.changes.active
				done := make(chan struct{})
				go func() {
					defer close(done)
					for range 10 {
						fillLog(t, x, segmentMax/8)
					}
					fillRefs(t, x, 101, 151)
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Errorf("changes wait for the swap")
					return
				}
				require.NotEqual(t, before, x.changes.active)
				require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
			}
			mustCompact(t, x)
			x.passed = nil
			require.NoError(t, x.Close())
			for _, dir := range []string{dir, killed} {
				x = indexOf(t, dir)
				require.Len(t, refsOf(t, x, 200), 150)
				mustVerify(t, x)
				require.NoError(t, x.Close())
			}
		})
	}
}

// fillLog commits a record of a length, of which no row stays.
func fillLog(t *testing.T, x *Index, bytes int) {
	t.Helper()
	const name = "long"
	require.NoError(t, x.change(false, func(tx *txn) error { return tx.put(bucketUnlinks, []byte(name), make([]byte, bytes)) }))
	require.NoError(t, x.change(false, func(tx *txn) error { tx.delete(bucketUnlinks, []byte(name)); return nil }))
}

// The file that a compaction has made may lose its last meta page like any other: the
// state before is whole, too.
func TestCompactedFileHasTwoStates(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 1, 301)
	x.batch = 16 << 10
	next := 301
	_, err := x.Compact(t.Context(), false, func(int64, int64) {
		if next < 351 { // the log uses its segments again, while the copy has an old number of the last record
			fillRefs(t, x, next, next+10)
			next += 10
			require.NoError(t, x.flush())
		}
	})
	require.NoError(t, err)
	fillRefs(t, x, 351, 401)
	now, _, err := readMetas(x.bolt.file)
	require.NoError(t, err)
	killed := filepath.Join(t.TempDir(), "killed")
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
	require.NoError(t, x.Close())
	f, err := os.OpenFile(filepath.Join(killed, fileName), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, now.pageSize), int64(now.txid%2)*now.pageSize)
	require.NoError(t, errors.Join(err, f.Close()))
	x = indexOf(t, killed)
	require.Len(t, refsOf(t, x, 500), 400)
	require.NoError(t, x.flush()) // which writes the page again
	mustVerify(t, x)
	require.NoError(t, x.Close())
}

// However often rows are flushed meanwhile, a compaction comes to its end.
func TestCompactBesideFlushesWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 1, 101)
	next, follows := 101, 0
	x.passed = func(step compactStep) {
		if step == stepFollowed {
			follows++
			fillRefs(t, x, next, next+1)
			next++
			require.NoError(t, x.flush())
		}
	}
	mustCompact(t, x)
	require.Equal(t, maxFollows+2, follows)
	require.Len(t, refsOf(t, x, next), next-1)
	mustVerify(t, x)
	require.NoError(t, x.Close())
}

// A compaction that ends early leaves all as it was, at whatever step.
func TestCompactCancelled(t *testing.T) {
	for _, at := range []compactStep{stepBegun, stepCopied, stepSealed, stepFollowed, stepCommitted} {
		t.Run(string(at), func(t *testing.T) {
			dir := t.TempDir()
			x := indexOf(t, dir)
			fillRefs(t, x, 1, 301)
			old := x.bolt
			ctx, cancel := context.WithCancel(t.Context())
			x.passed = func(step compactStep) {
				if step == at {
					cancel()
				}
			}
			_, err := x.Compact(ctx, false, nil)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, x.path)
			require.Same(t, old, x.bolt)
			require.Equal(t, compactFiles, filesIn(t, dir))
			fillRefs(t, x, 301, 401)
			x.passed = nil
			mustCompact(t, x)
			require.Len(t, refsOf(t, x, 500), 400)
			mustVerify(t, x)
			require.NoError(t, x.Close())
		})
	}
}

// A damaged page ends a compaction, and the file stays.
func TestCompactDamaged(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 0, 300)
	require.NoError(t, x.Close())
	x = indexOf(t, dir)
	var leaf uint64
	require.NoError(t, x.viewBolt(func(s *state) error {
		p, err := s.root(s.trees[bucketRefs])
		require.False(t, p.leaf())
		leaf = p.child(p.count() / 2)
		return err
	}))
	at := int64(leaf)*x.bolt.pages.size + 3000
	b := make([]byte, 1)
	_, err := x.bolt.file.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = x.bolt.file.WriteAt(b, at)
	require.NoError(t, err)
	old := x.bolt
	_, err = x.Compact(t.Context(), false, nil)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.ErrorContains(t, err, fmt.Sprintf("page %d ", leaf))
	require.Same(t, old, x.bolt)
	require.Equal(t, compactFiles, filesIn(t, dir))
	require.NoError(t, x.Close())
}

// What was removed before a compaction is in no file after it.
func TestCompactLeavesNoTrace(t *testing.T) {
	const secret = "session-of-somebody-who-left"
	for _, flushed := range []int{0, 1, 2} {
		dir := t.TempDir()
		x := indexOf(t, dir)
		fillRefs(t, x, 1, 51)
		u := storage.UUID{0: 0xee, 15: 99}
		key := storage.DigestKey(storage.Digest{0: 99, 31: 1})
		_, err := x.Add(t.Context(), &storage.Addition{
			Ref: storage.RefRow{UUID: u, Blob: key, Metadata: storage.MediaMetadata{SessionID: secret}},
			Blob: storage.BlobRow{Key: key, Path: fmt.Sprintf("%s/%06x-%s.png", secret, 99, u), Digest: storage.Digest{0: 99, 31: 1},
				Organization: storage.OrganizationFlat, Size: 1},
			Staged: true,
		})
		require.NoError(t, err)
		for range flushed {
			require.NoError(t, x.flush())
			fillRefs(t, x, 51, 52)
			removeRef(t, x, 51)
		}
		removal, err := x.Remove(t.Context(), storage.ID{Hash: [3]byte{2: 99}, UUID: u})
		require.NoError(t, err)
		require.True(t, removal.Last)
		debt, err := x.Debt(t.Context())
		require.NoError(t, err)
		require.NoError(t, x.Settle(t.Context(), debt))
		require.True(t, anyFileHas(t, dir, secret))
		mustCompact(t, x)
		require.False(t, anyFileHas(t, dir, secret), "flushed %d times", flushed)
		require.False(t, anyFileHas(t, dir, string(u[:])), "flushed %d times", flushed)
		mustVerify(t, x)
		require.NoError(t, x.Close())
		x = indexOf(t, dir)
		require.Len(t, refsOf(t, x, 100), 50)
		require.NoError(t, x.Close())
	}
}

func anyFileHas(t *testing.T, dir, text string) bool {
	t.Helper()
	return slices.ContainsFunc(filesIn(t, dir), func(name string) bool {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return bytes.Contains(data, []byte(text))
	})
}

// Where most of the file is free, it is compacted without being asked, once.
func TestCompactByItself(t *testing.T) {
	for _, off := range []bool{false, true} {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		config := Config{Root: root, Create: true, NoSync: true, CompactAt: 64 << 10}
		if off {
			config.CompactAt = -1
		}
		x, err := Open(context.Background(), config)
		require.NoError(t, err)
		fillRefs(t, x, 0, 1000)
		require.NoError(t, x.flush())
		for i := range 950 {
			removeRef(t, x, i)
		}
		require.NoError(t, x.flush())
		require.NoError(t, x.flush())
		before, free, err := x.extent()
		require.NoError(t, err)
		require.Greater(t, free, before/2)
		markMode(t, x, string(storage.OrganizationBySession)) // for the flusher to come by
		smaller := func() bool {
			now, _, err := x.extent()
			return err == nil && now < before/2
		}
		if off {
			time.Sleep(2 * flushInterval)
			require.False(t, smaller())
		} else {
			require.Eventually(t, smaller, 20*time.Second, 10*time.Millisecond)
		}
		require.NoError(t, x.Close())
		require.Equal(t, compactFiles, filesIn(t, dir))
		require.NoError(t, root.Close())
	}
}

// Close ends a compaction that nobody has asked for.
func TestCloseEndsCompaction(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 1, 1001)
	x.background.at = 1
	begun := make(chan struct{})
	var once sync.Once
	x.passed = func(step compactStep) {
		if step == stepBegun {
			once.Do(func() { close(begun) })
			<-x.background.ctx.Done()
		}
	}
	for i := range 990 {
		removeRef(t, x, i+1)
	}
	require.NoError(t, x.flush())
	x.background.all.Go(func() {
		if _, err := x.Compact(x.background.ctx, false, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("compaction at the closing: %v", err)
		}
	})
	<-begun
	require.NoError(t, x.Close())
	require.Equal(t, compactFiles, filesIn(t, dir))
	x = indexOf(t, dir)
	require.Len(t, refsOf(t, x, 1001), 10)
	mustVerify(t, x)
	require.NoError(t, x.Close())
}
