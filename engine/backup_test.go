package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// rowsOf is all that a store lists, by ID, without when blobs were last read.
func listedOf(t testing.TB, f *engine.FileStore) map[string]engine.Entry {
	t.Helper()
	all := map[string]engine.Entry{}
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		e.AccessedAt = time.Time{}
		all[e.Reference.ID] = e
	}
	return all
}

// openedBackup is what a backup holds, after it was opened as a store, verified
// with all bytes, and closed again.
func openedBackup(t testing.TB, dir string) map[string]engine.Entry {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, NoCreate: true})
	require.NoError(t, err)
	require.Empty(t, damage(t, f))
	all := listedOf(t, f)
	require.NoError(t, f.Close())
	return all
}

func mustBackup(t testing.TB, f *engine.FileStore, dest string, opts engine.BackupOptions) engine.Backup {
	t.Helper()
	b, err := f.Backup(context.Background(), dest, opts)
	require.NoError(t, err)
	return b
}

func TestBackupIsAStore(t *testing.T) {
	for _, everything := range []bool{false, true} {
		t.Run(fmt.Sprintf("copy=%t", everything), func(t *testing.T) {
			ctx := context.Background()
			f, dir := mixedStore(t)
			dest := filepath.Join(t.TempDir(), "deep", "backup")
			told := map[engine.BackupStep][2]int64{}
			opts := engine.BackupOptions{Copy: everything, Progress: func(what engine.BackupStep, done, of int64) { told[what] = [2]int64{done, of} }}
			before := time.Now().Truncate(time.Microsecond)
			b := mustBackup(t, f, dest, opts)
			require.WithinRange(t, b.At, before, time.Now())
			require.EqualValues(t, 10, b.References)
			require.EqualValues(t, 7, b.Blobs)
			require.Equal(t, mustStats(t, f).PhysicalBytes, b.Bytes)
			require.Equal(t, map[engine.BackupStep][2]int64{
				engine.BackupIndex: {10, 10}, engine.BackupCopy: {7, 7}, engine.BackupSidecars: {7, 7},
			}, told)
			if everything {
				require.EqualValues(t, 7, b.Copied)
				require.Equal(t, b.Bytes, b.CopiedBytes)
			} else {
				require.EqualValues(t, 7, b.Shared)
			}
			require.Equal(t, listedOf(t, f), openedBackup(t, dest))
			for _, name := range blobFiles(t, dir) {
				require.Equal(t, !everything, sameFile(t, filepath.Join(dir, name), filepath.Join(dest, name)), name)
			}

			// What was opened is closed again, and can be backed up to. Nothing has changed.
			b = mustBackup(t, f, dest, opts)
			require.EqualValues(t, 7, b.Kept)
			require.Zero(t, b.Copied+b.Shared)
			require.Equal(t, listedOf(t, f), openedBackup(t, dest))

			// Some go, some come, some gain and lose references.
			for id, e := range listedOf(t, f) {
				if e.Metadata.SessionID == "s1" || e.Metadata.SessionID == "own" && e.Metadata.MessageIndex < 2 {
					require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: id}))
				}
			}
			mustStore(t, f, shared, storage.MediaMetadata{SessionID: "more"})
			mustStore(t, f, []byte("new"), storage.MediaMetadata{SessionID: "more"})
			b = mustBackup(t, f, dest, opts)
			require.EqualValues(t, 5, b.Kept)
			require.EqualValues(t, 1, b.Copied+b.Shared)
			require.Equal(t, listedOf(t, f), openedBackup(t, dest))
			require.Equal(t, blobFiles(t, dir), blobFiles(t, dest))

			// The two do not depend on each other.
			require.NoError(t, f.Close())
			require.NoError(t, os.RemoveAll(dir))
			f = mustOpen(t, engine.FileStoreConfig{BaseDir: dest})
			for id := range listedOf(t, f) {
				mustRetrieve(t, f, &storage.StorageReference{ID: id})
				require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: id}))
			}
			require.Empty(t, blobFiles(t, dest))
			require.NoError(t, os.MkdirAll(dir, 0o700)) // for the cleanup, which verifies
		})
	}
}

func sameFile(t testing.TB, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	require.NoError(t, err)
	y, err := os.Stat(b)
	require.NoError(t, err)
	return os.SameFile(x, y)
}

func TestRestoreMakesAStore(t *testing.T) {
	ctx := context.Background()
	for _, link := range []bool{false, true} {
		t.Run(fmt.Sprintf("link=%t", link), func(t *testing.T) {
			f, _ := mixedStore(t)
			saved, dest := filepath.Join(t.TempDir(), "saved"), filepath.Join(t.TempDir(), "restored")
			made := mustBackup(t, f, saved, engine.BackupOptions{})
			want := listedOf(t, f)
			mustStore(t, f, []byte("later"), storage.MediaMetadata{})

			var steps []engine.RestoreStep
			b, err := engine.Restore(ctx, saved, dest, engine.RestoreOptions{Link: link, Progress: func(what engine.RestoreStep, _, _ int64) {
				if len(steps) == 0 || steps[len(steps)-1] != what {
					steps = append(steps, what)
				}
			}})
			require.NoError(t, err)
			require.Equal(t, made.At, b.At)
			require.EqualValues(t, 10, b.References)
			require.Equal(t, []engine.RestoreStep{engine.RestoreIndex, engine.RestoreCopy, engine.RestoreSidecars, engine.RestoreVerify}, steps)
			require.Equal(t, want, openedBackup(t, dest))
			require.NoFileExists(t, filepath.Join(dest, ".mediabolt", "backup.json"))
			for _, name := range blobFiles(t, saved) {
				require.Equal(t, link, sameFile(t, filepath.Join(saved, name), filepath.Join(dest, name)))
			}

			_, err = engine.Restore(ctx, saved, dest, engine.RestoreOptions{})
			require.ErrorIs(t, err, storage.ErrConflict)
			_, err = engine.Restore(ctx, dest, filepath.Join(t.TempDir(), "x"), engine.RestoreOptions{})
			require.ErrorIs(t, err, storage.ErrNoStore, "a store is no backup")
			_, err = engine.Restore(ctx, t.TempDir(), filepath.Join(t.TempDir(), "x"), engine.RestoreOptions{})
			require.ErrorIs(t, err, storage.ErrNoStore)
			_, err = engine.Restore(ctx, saved, filepath.Join(saved, "inside"), engine.RestoreOptions{})
			require.ErrorIs(t, err, storage.ErrInvalidConfig)
		})
	}
}

func TestBackupRefuses(t *testing.T) {
	ctx := context.Background()
	f, dir := mixedStore(t)
	some := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(some, "thesis.txt"), nil, 0o600))
	another, elsewhere := mixedStore(t)
	saved := filepath.Join(t.TempDir(), "saved")
	mustBackup(t, another, saved, engine.BackupOptions{})
	around := filepath.Dir(dir)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	file := filepath.Join(some, "thesis.txt")
	for dest, want := range map[string]error{
		"": storage.ErrInvalidConfig, dir: storage.ErrInvalidConfig, filepath.Join(dir, "sub", "dir"): storage.ErrInvalidConfig,
		around: storage.ErrInvalidConfig, filepath.Join(link, "sub"): storage.ErrInvalidConfig,
		some: storage.ErrConflict, elsewhere: storage.ErrConflict, saved: storage.ErrConflict, file: storage.ErrIO,
	} {
		_, err := f.Backup(ctx, dest, engine.BackupOptions{})
		require.ErrorIs(t, err, want, "%s", dest)
		requireSentinel(t, err, dir)
	}
	require.FileExists(t, file)
	require.NoDirExists(t, filepath.Join(dir, "sub"))
	require.Len(t, openedBackup(t, saved), 10)

	// One that somebody has open.
	used := mustOpen(t, engine.FileStoreConfig{BaseDir: saved})
	_, err := another.Backup(ctx, saved, engine.BackupOptions{})
	require.ErrorIs(t, err, storage.ErrLocked)
	require.NoError(t, used.Close())

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.Backup(ended, filepath.Join(t.TempDir(), "x"), engine.BackupOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, another.Close())
	_, err = another.Backup(ctx, saved, engine.BackupOptions{})
	require.ErrorIs(t, err, storage.ErrClosed)
}

// Of two backups into one directory at once, one is refused; into two directories,
// both are made.
func TestTwoBackupsAtOnce(t *testing.T) {
	ctx := context.Background()
	f, _ := mixedStore(t)
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	var nested error
	_, err := f.Backup(ctx, one, engine.BackupOptions{Progress: func(_ engine.BackupStep, done, _ int64) {
		if done == 1 {
			_, nested = f.Backup(ctx, one, engine.BackupOptions{})
		}
	}})
	require.NoError(t, err)
	require.ErrorIs(t, nested, storage.ErrLocked)
	atOnce(t, 2, func(i int) error {
		_, err := f.Backup(ctx, []string{one, two}[i], engine.BackupOptions{Copy: true})
		return err
	})
	require.Equal(t, openedBackup(t, one), openedBackup(t, two))
}

// A backup that ends at any point is refused, or is the earlier one; another one
// finishes it.
func TestBackupAfterCrashes(t *testing.T) {
	ctx := context.Background()
	for _, point := range []engine.FaultPoint{engine.FaultCopied, engine.FaultCollected, engine.FaultTurning, engine.FaultTurned} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/again=%t", point, again), func(t *testing.T) {
				t.Parallel()
				var armed atomic.Bool
				dir, dest, copied := t.TempDir(), filepath.Join(t.TempDir(), "dest"), filepath.Join(t.TempDir(), "copied")
				f := mustOpen(t, engine.WithFaults(engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true}, func(_ context.Context, p engine.FaultPoint) error {
					if p == point && armed.CompareAndSwap(true, false) {
						return errors.Join(copyTree(dest, copied), errCrash)
					}
					return nil
				}))
				var goes *storage.StorageReference
				for i := range 300 { // more than are copied together
					goes = mustStore(t, f, fmt.Appendf(nil, "blob %d", i), storage.MediaMetadata{SessionID: fmt.Sprint("s", i%3)})
				}
				opts := engine.BackupOptions{Copy: true}
				var earlier map[string]engine.Entry
				if again {
					mustBackup(t, f, dest, opts)
					earlier = listedOf(t, f)
				}
				require.NoError(t, f.Delete(ctx, goes))
				for i := range 200 {
					mustStore(t, f, fmt.Appendf(nil, "more %d", i), storage.MediaMetadata{})
				}
				want := listedOf(t, f)
				armed.Store(true)
				_, err := f.Backup(ctx, dest, opts)
				require.ErrorIs(t, err, errCrash)
				for _, left := range []string{copied, dest} {
					if again && (point == engine.FaultCopied || point == engine.FaultCollected) {
						g, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: left, NoCreate: true})
						require.NoError(t, err)
						require.Equal(t, earlier, listedOf(t, g))
						for id := range earlier {
							mustRetrieve(t, g, &storage.StorageReference{ID: id})
						}
						require.NoError(t, g.Close())
					} else {
						_, err = engine.Open(ctx, engine.FileStoreConfig{BaseDir: left})
						require.ErrorIs(t, err, storage.ErrCorrupted)
						require.ErrorContains(t, err, "was not finished: run it again")
						_, err = engine.Restore(ctx, left, filepath.Join(t.TempDir(), "x"), engine.RestoreOptions{})
						require.ErrorIs(t, err, storage.ErrCorrupted)
					}
					b := mustBackup(t, f, left, opts)
					if point != engine.FaultCopied {
						require.Zero(t, b.Copied, "nothing is copied twice")
					}
					require.Equal(t, want, openedBackup(t, left))
					require.Equal(t, blobFiles(t, dir), blobFiles(t, left))
				}
			})
		}
	}
}

// A restore that was interrupted is refused by Open and finished by another one.
func TestRestoreAfterCrashes(t *testing.T) {
	ctx := context.Background()
	f, _ := mixedStore(t)
	saved := filepath.Join(t.TempDir(), "saved")
	mustBackup(t, f, saved, engine.BackupOptions{})
	for _, point := range []engine.FaultPoint{engine.FaultCopied, engine.FaultCollected, engine.FaultTurning, engine.FaultTurned} {
		t.Run(string(point), func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "dest")
			opts := engine.RestoreOptions{Config: engine.WithFaults(engine.FileStoreConfig{}, func(_ context.Context, p engine.FaultPoint) error {
				if p == point {
					return errCrash
				}
				return nil
			})}
			_, err := engine.Restore(ctx, saved, dest, opts)
			require.ErrorIs(t, err, errCrash)
			_, err = engine.Open(ctx, engine.FileStoreConfig{BaseDir: dest})
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.ErrorContains(t, err, "restore")
			_, err = engine.Restore(ctx, saved, dest, engine.RestoreOptions{})
			require.NoError(t, err)
			require.Equal(t, listedOf(t, f), openedBackup(t, dest))
		})
	}
}

// Damage in the store stays out of a backup, and does not take away what an earlier
// one has.
func TestBackupOfDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, harm := range map[string]func(t *testing.T, file string){
		"flipped": func(t *testing.T, file string) { flipByte(t, file) },
		"gone":    func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) },
		"cut":     func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 10)) },
	} {
		for _, data := range [][]byte{small, large} {
			t.Run(fmt.Sprint(name, len(data)), func(t *testing.T) {
				dir := t.TempDir()
				f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone})
				require.NoError(t, err)
				defer func() { require.NoError(t, f.Close()) }()
				good := mustStore(t, f, shared, storage.MediaMetadata{})
				bad := mustStore(t, f, data, storage.MediaMetadata{})
				mustStore(t, f, data, storage.MediaMetadata{SessionID: "another"})
				require.NoError(t, f.Checkpoint(ctx)) // or else they are in staging too
				earlier, later := filepath.Join(t.TempDir(), "earlier"), filepath.Join(t.TempDir(), "later")
				mustBackup(t, f, earlier, engine.BackupOptions{Copy: true})
				harm(t, filepath.Join(dir, bad.Metadata["path"]))

				b, err := f.Backup(ctx, later, engine.BackupOptions{Copy: true})
				require.ErrorIs(t, err, storage.ErrCorrupted)
				require.ErrorContains(t, err, bad.Metadata["path"])
				require.Len(t, b.LeftOut, 1)
				require.EqualValues(t, 1, b.References)
				require.Contains(t, openedBackup(t, later), good.ID)

				mustBackup(t, f, earlier, engine.BackupOptions{Copy: true})
				require.Len(t, openedBackup(t, earlier), 3)

				// Damage of a backup is found by what restores it.
				dest := filepath.Join(t.TempDir(), "dest")
				harm(t, filepath.Join(earlier, bad.Metadata["path"]))
				b, err = engine.Restore(ctx, earlier, dest, engine.RestoreOptions{})
				require.ErrorIs(t, err, storage.ErrCorrupted)
				require.Len(t, b.LeftOut, 1)
				require.Len(t, openedBackup(t, dest), 1)
			})
		}
	}
}

// Files of blobs that are deleted while a backup reads them stay until it has them,
// and no longer, also where the process is killed.
func TestDeletionBesideABackup(t *testing.T) {
	ctx := context.Background()
	f, dir := mixedStore(t)
	want := listedOf(t, f)
	dest := filepath.Join(t.TempDir(), "dest")
	copied := filepath.Join(t.TempDir(), "copied")
	_, err := f.Backup(ctx, dest, engine.BackupOptions{Copy: true, Progress: func(what engine.BackupStep, done, _ int64) {
		if what != engine.BackupCopy || done != 1 {
			return
		}
		for id := range want {
			require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: id}))
		}
		require.Empty(t, damage(t, f), "what is kept on purpose is no finding")
		require.NotEmpty(t, blobFiles(t, dir))
		require.NoError(t, copyTree(dir, copied))
		mustStore(t, f, shared, storage.MediaMetadata{SessionID: "anew"})
	}})
	require.NoError(t, err)
	require.Equal(t, want, openedBackup(t, dest))
	require.Len(t, blobFiles(t, dir), 1)

	killed := mustOpen(t, engine.FileStoreConfig{BaseDir: copied})
	require.Empty(t, blobFiles(t, copied))
	require.Zero(t, mustStats(t, killed).References)
}

// Sets of references are stored and deleted in an order, so that a moment can be
// told from what is not one:
//
//	chain:   n is stored when n-1 is there, and deleted when n+1 is gone: a backup has a
//	         beginning of them
//	swap:    the successor is stored before its predecessor is deleted: a backup has one
//	         or two that follow one another
//	dwindle: of a set that is whole the first is deleted, then the second: a backup has a
//	         beginning or an end of one set
//
// All of them share blobs with others, so that these come and go too.
func TestBackupsBesideTrafficShowOneMoment(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	var stop atomic.Bool
	var traffic sync.WaitGroup
	var failed atomic.Pointer[error]
	run := func(work func(n int) error) {
		traffic.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if err := work(n); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	store := func(kind string, worker, n int) (*storage.StorageReference, error) {
		data := fmt.Appendf(nil, "%s %d", kind, n%7)
		if n%3 == 0 {
			data = fmt.Appendf(nil, "content %d", n%11) // shared between kinds
		}
		return f.Store(ctx, content(data), storage.MediaMetadata{SessionID: fmt.Sprint(kind, "-", worker), MessageIndex: n})
	}
	const workers = 4
	for w := range workers {
		run(func(int) error {
			var chain [150]*storage.StorageReference
			for i := range chain {
				var err error
				if chain[i], err = store("chain", w, i); err != nil {
					return err
				}
			}
			for _, ref := range slices.Backward(chain[:]) {
				if err := f.Delete(ctx, ref); err != nil {
					return err
				}
			}
			return nil
		})
		var last *storage.StorageReference
		run(func(n int) error {
			next, err := store("swap", w, n)
			if err == nil && last != nil {
				err = f.Delete(ctx, last)
			}
			last = next
			return err
		})
		run(func(n int) error {
			var set [5]*storage.StorageReference
			for i := range set {
				var err error
				if set[i], err = store("dwindle", w, n*len(set)+i); err != nil {
					return err
				}
			}
			for i := range set {
				if err := f.Delete(ctx, set[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	dests := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	saw := map[string]int{}
	var sawMu sync.Mutex
	atOnce(t, len(dests), func(i int) error {
		for round := range 8 {
			// What has returned before is in it, what begins later is not.
			sure, err := store("sure", i, round)
			if err != nil {
				return err
			}
			if _, err := f.Backup(ctx, dests[i], engine.BackupOptions{Copy: round%2 == 0}); err != nil {
				return err
			}
			late, err := store("late", i, round)
			if err != nil {
				return err
			}
			all := openedBackup(t, dests[i])
			if _, there := all[sure.ID]; !there {
				return fmt.Errorf("%s lacks what was stored before it began", dests[i])
			}
			if _, there := all[late.ID]; there {
				return fmt.Errorf("%s has what was stored after it", dests[i])
			}
			if err := judgeMoment(all, workers); err != nil {
				return err
			}
			sawMu.Lock()
			for _, e := range all {
				saw[e.Metadata.SessionID]++
			}
			sawMu.Unlock()
		}
		return nil
	})
	stop.Store(true)
	traffic.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
	for w := range workers {
		for _, kind := range []string{"chain", "swap", "dwindle"} {
			require.NotZero(t, saw[fmt.Sprint(kind, "-", w)])
		}
	}
}

// judgeMoment says what of a backup cannot have been there at one moment.
func judgeMoment(all map[string]engine.Entry, workers int) error {
	by := map[string]map[int]bool{}
	for _, e := range all {
		if by[e.Metadata.SessionID] == nil {
			by[e.Metadata.SessionID] = map[int]bool{}
		}
		by[e.Metadata.SessionID][e.Metadata.MessageIndex] = true
	}
	for w := range workers {
		chain := by[fmt.Sprint("chain-", w)]
		for n := range len(chain) {
			if !chain[n] {
				return fmt.Errorf("chain %d of %d links lacks %d", w, len(chain), n)
			}
		}
		swap := by[fmt.Sprint("swap-", w)]
		if len(swap) > 2 {
			return fmt.Errorf("swap %d has %v", w, swap)
		}
		low, high := bounds(swap)
		if len(swap) > 0 && high-low != len(swap)-1 {
			return fmt.Errorf("swap %d has %v, which do not follow one another", w, swap)
		}
		dwindle := by[fmt.Sprint("dwindle-", w)]
		low, high = bounds(dwindle)
		switch {
		case len(dwindle) == 0:
		case len(dwindle) > 5, high/5 != low/5, high-low != len(dwindle)-1:
			return fmt.Errorf("dwindle %d has %v, which is no moment of a set", w, dwindle)
		case low%5 != 0 && high%5 != 4:
			return fmt.Errorf("dwindle %d has %v, neither a beginning nor an end of a set", w, dwindle)
		}
	}
	return nil
}

func bounds(set map[int]bool) (low, high int) {
	low = 1 << 60
	for n := range set {
		low, high = min(low, n), max(high, n)
	}
	return low, high
}
