package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// allIDs has every kind of ID that a hold can be on.
var allIDs = storage.MediaMetadata{SessionID: "s 1", ConversationID: "c 1", RunID: "r 1", UserID: "u 1"}

// holdTargets are the targets of every kind that a reference with allIDs is in.
func holdTargets(ref *storage.StorageReference) []engine.HoldTarget {
	return []engine.HoldTarget{
		{Kind: engine.HoldReference, ID: ref.ID}, {Kind: engine.HoldSession, ID: "s 1"}, {Kind: engine.HoldConversation, ID: "c 1"},
		{Kind: engine.HoldRun, ID: "r 1"}, {Kind: engine.HoldUser, ID: "u 1"},
	}
}

func onSession(name, id string) engine.Hold {
	return engine.Hold{Name: name, Target: engine.HoldTarget{Kind: engine.HoldSession, ID: id}}
}

func mustHold(t testing.TB, f *engine.FileStore, holds ...engine.Hold) {
	t.Helper()
	require.NoError(t, f.Hold(context.Background(), holds...))
}

func mustRelease(t testing.TB, f *engine.FileStore, name string, targets ...engine.HoldTarget) []engine.Hold {
	t.Helper()
	released, err := f.Release(context.Background(), name, targets...)
	require.NoError(t, err)
	return released
}

func mustListHolds(t testing.TB, f *engine.FileStore, names ...string) (list []engine.Hold) {
	t.Helper()
	for h, err := range f.Holds(context.Background(), names...) {
		require.NoError(t, err)
		list = append(list, h)
	}
	return list
}

// requireHeld requires that a reference cannot be deleted, because of this hold, and
// is still there.
func requireHeld(t testing.TB, f *engine.FileStore, ref *storage.StorageReference, name string, target engine.HoldTarget) {
	t.Helper()
	err := f.Delete(context.Background(), ref)
	require.ErrorIs(t, err, storage.ErrHeld)
	require.ErrorContains(t, err, fmt.Sprintf("%s: media is held: by hold %q on %s %q", ref.ID, name, target.Kind, target.ID))
	mustStat(t, f, ref)
}

// A hold of every kind stops the deletion of what is there and of what comes later,
// until it is released, and says what it is.
func TestHoldStopsDeletion(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	for i := range holdTargets(&storage.StorageReference{}) {
		early := mustStore(t, f, small, allIDs)
		target := holdTargets(early)[i]
		mustHold(t, f, engine.Hold{Name: "case 17", Target: target})
		requireHeld(t, f, early, "case 17", target)
		late := mustStore(t, f, small, allIDs)
		if target.Kind == engine.HoldReference {
			require.NoError(t, f.Delete(ctx, late), "another reference to the same bytes is not held")
		} else {
			requireHeld(t, f, late, "case 17", target)
			elsewhere := mustStore(t, f, small, storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r", UserID: "s 1"})
			require.NoError(t, f.Delete(ctx, elsewhere))
		}
		require.Len(t, mustRelease(t, f, "case 17", target), 1)
		require.NoError(t, f.Delete(ctx, early))
		require.NoError(t, f.Delete(ctx, late))
	}
	requireEmpty(t, f, config.BaseDir)
}

// Holds are there after a close and after a kill, and so are releases.
func TestHoldsSurvive(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	at := time.Date(2026, 3, 1, 12, 30, 0, 123_456_789, time.FixedZone("", 3600))
	var ref *storage.StorageReference
	var want []engine.Hold
	mustAbandon(t, config, func(f *engine.FileStore) {
		ref = mustStore(t, f, small, allIDs)
		for _, target := range holdTargets(ref) {
			mustHold(t, f, engine.Hold{Name: "kept", Target: target, Reason: "<why>\nline 2 \u2028", By: "Ö. Müller", At: at},
				engine.Hold{Name: "released", Target: target})
		}
		want = mustListHolds(t, f, "kept")
		require.Len(t, want, 5)
		require.Equal(t, at.UTC().Truncate(time.Microsecond), want[0].At)
		mustRelease(t, f, "released", holdTargets(ref)...)
	})
	for range 2 {
		setup(t, config, func(f *engine.FileStore) {
			require.Equal(t, want, mustListHolds(t, f))
			requireHeld(t, f, ref, "kept", holdTargets(ref)[0])
		})
	}
	setup(t, config, func(f *engine.FileStore) {
		released, err := f.ReleaseAll(context.Background(), "kept")
		require.NoError(t, err)
		require.Equal(t, want, released)
	})
	f := mustOpen(t, config)
	require.Empty(t, mustListHolds(t, f))
	require.NoError(t, f.Delete(context.Background(), ref))
}

// A directory copied at any moment, as a killed process leaves it, has what was
// acknowledged before.
func TestHoldsOfAKilledProcess(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	for n := range 12 {
		if n%3 == 2 {
			_, err := f.ReleaseAll(context.Background(), fmt.Sprint("hold ", n-1))
			require.NoError(t, err)
		} else {
			mustHold(t, f, onSession(fmt.Sprint("hold ", n), "s"))
		}
		killed := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store")}
		require.NoError(t, copyTree(config.BaseDir, killed.BaseDir))
		setup(t, killed, func(g *engine.FileStore) { require.Equal(t, mustListHolds(t, f), mustListHolds(t, g)) })
	}
}

// A target may have many holds, and is held until the last is released.
func TestHoldsOnOneTarget(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	ref := mustStore(t, f, small, allIDs)
	session, user := holdTargets(ref)[1], holdTargets(ref)[4]
	mustHold(t, f, engine.Hold{Name: "b", Target: session}, engine.Hold{Name: "a", Target: session}, engine.Hold{Name: "0", Target: user})
	require.ErrorContains(t, f.Delete(ctx, ref), `by hold "a" on session "s 1", and 2 more`)
	mustRelease(t, f, "a", session)
	requireHeld(t, f, ref, "b", session)
	mustRelease(t, f, "b", session, user)
	requireHeld(t, f, ref, "0", user)
	mustRelease(t, f, "0", user)
	require.NoError(t, f.Delete(ctx, ref))
}

func TestHoldAndReleaseAreIdempotent(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	first := onSession("a", "s")
	first.Reason = "the first stays"
	mustHold(t, f)
	require.NoFileExists(t, filepath.Join(config.BaseDir, ".mediabolt", "holds"))
	mustHold(t, f, first, onSession("a", "s"))
	file := treeOf(t, config.BaseDir)["/.mediabolt/holds"]
	mustHold(t, f, onSession("a", "s"))
	require.Equal(t, file, treeOf(t, config.BaseDir)["/.mediabolt/holds"], "nothing is written for what is there")
	list := mustListHolds(t, f)
	require.Len(t, list, 1)
	require.Equal(t, "the first stays", list[0].Reason)
	require.WithinDuration(t, time.Now(), list[0].At, time.Minute)

	require.Empty(t, mustRelease(t, f, "b", first.Target))
	require.Empty(t, mustRelease(t, f, "a", engine.HoldTarget{Kind: engine.HoldUser, ID: "s"}))
	require.Equal(t, list, mustRelease(t, f, "a", first.Target, first.Target))
	require.Empty(t, mustRelease(t, f, "a", first.Target))
	released, err := f.ReleaseAll(ctx, "a")
	require.NoError(t, err)
	require.Empty(t, released)
}

// What cannot be held is refused, with everything that was asked for along with it.
func TestHoldRefusesWhatItCannotKeep(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	gone := mustStore(t, f, small, allIDs)
	require.NoError(t, f.Delete(ctx, gone))
	session := engine.HoldTarget{Kind: engine.HoldSession, ID: "s"}
	for name, c := range map[string]struct {
		hold engine.Hold
		is   error
		says string
	}{
		"no name":         {engine.Hold{Target: session}, storage.ErrInvalidHold, "no name"},
		"long name":       {engine.Hold{Name: strings.Repeat("n", 129), Target: session}, storage.ErrInvalidHold, "129 bytes, at most 128"},
		"control in name": {engine.Hold{Name: "a\x1b[2J", Target: session}, storage.ErrInvalidHold, "control character"},
		"blank name":      {engine.Hold{Name: " ", Target: session}, storage.ErrInvalidHold, "space"},
		"name in Latin-1": {engine.Hold{Name: "\xfc", Target: session}, storage.ErrInvalidHold, "UTF-8"},
		"long reason":     {engine.Hold{Name: "a", Target: session, Reason: strings.Repeat("r", 4097)}, storage.ErrInvalidHold, "reason"},
		"reason":          {engine.Hold{Name: "a", Target: session, Reason: "\xff"}, storage.ErrInvalidHold, "UTF-8"},
		"long by":         {engine.Hold{Name: "a", Target: session, By: strings.Repeat("b", 257)}, storage.ErrInvalidHold, "by"},
		"control in by":   {engine.Hold{Name: "a", Target: session, By: "b\n"}, storage.ErrInvalidHold, "by"},
		"year":            {engine.Hold{Name: "a", Target: session, At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, storage.ErrInvalidHold, "year"},
		"no kind":         {engine.Hold{Name: "a", Target: engine.HoldTarget{ID: "s"}}, storage.ErrInvalidHold, "reference, session, conversation, run or user"},
		"no ID":           {engine.Hold{Name: "a", Target: engine.HoldTarget{Kind: engine.HoldUser}}, storage.ErrInvalidHold, "user without an ID"},
		"long ID":         {onSession("a", strings.Repeat("s", storage.MaxIDLength+1)), storage.ErrInvalidHold, "session ID"},
		"ID in Latin-1":   {onSession("a", "\xfc"), storage.ErrInvalidHold, "UTF-8"},
		"malformed":       {engine.Hold{Name: "a", Target: engine.HoldTarget{Kind: engine.HoldReference, ID: "../x"}}, storage.ErrInvalidRef, "../x"},
		"deleted":         {engine.Hold{Name: "a", Target: holdTargets(gone)[0]}, storage.ErrNotFound, gone.ID},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.Hold(ctx, onSession("good", "s"), c.hold)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Empty(t, mustListHolds(t, f))
		})
	}
	_, err := f.Release(ctx, "a")
	require.ErrorIs(t, err, storage.ErrInvalidHold)
	_, err = f.Release(ctx, "", session)
	require.ErrorIs(t, err, storage.ErrInvalidHold)
	_, err = f.Release(ctx, "a", engine.HoldTarget{Kind: "planet", ID: "s"})
	require.ErrorIs(t, err, storage.ErrInvalidHold)
	_, err = f.ReleaseAll(ctx, "")
	require.ErrorIs(t, err, storage.ErrInvalidHold)

	// What is gone is as good as deleted, whatever is held.
	mustHold(t, f, onSession("a", "s"))
	require.NoError(t, f.Delete(ctx, gone))
}

// Holds are not in the index: a new one in the place of one that was lost finds them.
func TestHoldsOutliveTheIndex(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) { mustHold(t, f, onSession("a", allIDs.SessionID)) })
	control := filepath.Join(config.BaseDir, ".mediabolt")
	entries, err := os.ReadDir(control)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "holds" {
			require.NoError(t, os.RemoveAll(filepath.Join(control, e.Name())))
		}
	}
	f := mustOpen(t, config)
	require.Len(t, mustListHolds(t, f), 1)
	requireHeld(t, f, mustStore(t, f, small, allIDs), "a", engine.HoldTarget{Kind: engine.HoldSession, ID: allIDs.SessionID})
}

// With a damaged journal nothing is deleted and everything else works; what helps is
// in the error, and does help.
func TestDamagedHolds(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	file := filepath.Join(config.BaseDir, ".mediabolt", "holds")
	var ref, free *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) {
		ref, free = mustStore(t, f, small, allIDs), mustStore(t, f, other, someIDs)
		mustHold(t, f, onSession("a", allIDs.SessionID), onSession("b", "another"))
	})
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(good), allIDs.SessionID, "s 2", 1)), 0o600))
	setup(t, config, func(f *engine.FileStore) {
		require.Equal(t, small, mustRetrieve(t, f, ref))
		mustStore(t, f, shared, someIDs)
		_, released := f.ReleaseAll(ctx, "a")
		var listed []string
		var list error
		for h, err := range f.Holds(ctx) {
			if list = err; err == nil {
				listed = append(listed, h.Name)
			}
		}
		require.Equal(t, []string{"b"}, listed, "what can be read")
		for _, err := range []error{f.Delete(ctx, ref), f.Delete(ctx, free), f.Hold(ctx, onSession("c", "s")), released, list} {
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.ErrorContains(t, err, file+": line 2: ")
			require.ErrorContains(t, err, "restored from a backup; moving it away gives up the holds in it")
		}
		found := damage(t, f)
		require.Len(t, found, 1)
		require.Equal(t, storage.FindingJournal, found[0].Kind)
		require.Equal(t, ".mediabolt/holds", found[0].Path)
		require.Contains(t, found[0].Detail, "line 2")
	})
	require.NoError(t, os.WriteFile(file, good, 0o600))
	setup(t, config, func(f *engine.FileStore) {
		require.ErrorIs(t, f.Delete(ctx, ref), storage.ErrHeld)
		require.NoError(t, f.Delete(ctx, free))
		// Damage that comes while the store is open is found too.
		require.NoError(t, os.WriteFile(file, good[:len(good)-1], 0o600))
		require.Len(t, damage(t, f), 1)
		require.NoError(t, os.WriteFile(file, good, 0o600))
	})
	require.NoError(t, os.Rename(file, filepath.Join(t.TempDir(), "away")))
	f := mustOpen(t, config)
	require.NoError(t, f.Delete(ctx, ref))
}

// When Hold has returned, what it is on is there for good: a deletion under way has
// come to its end before, or is refused.
func TestHoldsWhileOthersDelete(t *testing.T) {
	const sessions, each, deleters = 12, 40, 8
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	refs := make([]*storage.StorageReference, sessions*each)
	atOnce(t, sessions, func(s int) (err error) {
		for i := range each {
			if refs[i*sessions+s], err = f.Store(ctx, content([]byte{byte(s)}), storage.MediaMetadata{SessionID: fmt.Sprint(s)}); err != nil {
				return err
			}
		}
		return nil
	})
	var next, refused atomic.Int64
	kept := make([]map[string]bool, sessions)
	inSession := func(s int) (ids map[string]bool, err error) {
		ids = map[string]bool{}
		for e, err := range f.List(ctx, engine.Query{SessionID: fmt.Sprint(s)}) {
			if err != nil {
				return nil, err
			}
			ids[e.Reference.ID] = true
		}
		return ids, nil
	}
	atOnce(t, deleters+1, func(i int) error {
		if i == deleters {
			for s := range sessions {
				for next.Load() < int64(s*each) { // spread over the deletions
					time.Sleep(time.Microsecond)
				}
				if err := f.Hold(ctx, onSession("a", fmt.Sprint(s))); err != nil {
					return err
				}
				var err error
				if kept[s], err = inSession(s); err != nil {
					return err
				}
			}
			return nil
		}
		for n := next.Add(1) - 1; int(n) < len(refs); n = next.Add(1) - 1 {
			err := f.Delete(ctx, refs[n])
			if errors.Is(err, storage.ErrHeld) {
				refused.Add(1)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	left := 0
	for s := range sessions {
		ids, err := inSession(s)
		require.NoError(t, err)
		require.Equal(t, kept[s], ids, "session %d", s)
		left += len(ids)
	}
	require.EqualValues(t, left, refused.Load())
	require.NotZero(t, left)
	require.Less(t, left, len(refs))
}

// The journal stays in proportion to what is held, however much was released.
func TestHoldsAreCompacted(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	size := func() int64 {
		info, err := os.Stat(filepath.Join(config.BaseDir, ".mediabolt", "holds"))
		require.NoError(t, err)
		return info.Size()
	}
	want := map[string]bool{}
	for n := range 10 {
		mustHold(t, f, onSession(fmt.Sprint("kept ", n), "s"))
		want[fmt.Sprint("kept ", n)] = true
	}
	ten := size()
	for n := range 500 {
		mustHold(t, f, onSession("passing", fmt.Sprint(n)))
		mustRelease(t, f, "passing", onSession("", fmt.Sprint(n)).Target)
		require.Less(t, size(), 3*ten)
	}
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	got := map[string]bool{}
	for _, h := range mustListHolds(t, f) {
		got[h.Name] = true
	}
	require.Equal(t, want, got)
	for name := range want {
		_, err := f.ReleaseAll(context.Background(), name)
		require.NoError(t, err)
	}
	left, err := os.ReadFile(filepath.Join(config.BaseDir, ".mediabolt", "holds"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(left), "\n"), "only the head is left")
}
