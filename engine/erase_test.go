package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// requireNoTrace requires that no name and no file outside the index holds a text.
func requireNoTrace(t testing.TB, baseDir, text string) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(baseDir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == ".mediabolt/index.db" || strings.HasPrefix(name, ".mediabolt/log.") {
			return err
		}
		require.NotContains(t, name, text)
		if e.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(baseDir, name))
		require.False(t, bytes.Contains(data, []byte(text)), "%s holds %q", name, text)
		return err
	}))
}

// allEntries is everything that a query lists.
func allEntries(t testing.TB, f *engine.FileStore, q engine.Query) []engine.Entry {
	t.Helper()
	var all []engine.Entry
	for e, err := range f.List(context.Background(), q) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

// erasable stores what is shared and what is not, of a session "doomed" by user
// "erased-user" and of others, and returns what is to stay.
func erasable(t testing.TB, f *engine.FileStore) (kept map[string][]byte) {
	t.Helper()
	doomed := storage.MediaMetadata{SessionID: "doomed", ConversationID: "conv-of-it", UserID: "erased-user", RunID: "run"}
	others := storage.MediaMetadata{SessionID: "other", ConversationID: "conv", UserID: "user", RunID: "run"}
	kept = map[string][]byte{}
	mustStore(t, f, small, doomed)
	mustStore(t, f, shared, doomed) // its file lies in the directory of the session
	kept[mustStore(t, f, shared, others).ID] = shared
	kept[mustStore(t, f, other, others).ID] = other
	mustStore(t, f, other, doomed) // its lines are in a sidecar of the other session
	// Ended before the erasure, yet told of in a sidecar and in the name of a directory.
	before := mustStore(t, f, large, doomed)
	ctx := context.Background()
	passing := engine.HoldTarget{Kind: engine.HoldSession, ID: "doomed"}
	require.NoError(t, f.Hold(ctx, engine.Hold{Name: "passing", Target: passing},
		engine.Hold{Name: "a", Target: engine.HoldTarget{Kind: engine.HoldSession, ID: "nobody"}},
		engine.Hold{Name: "b", Target: engine.HoldTarget{Kind: engine.HoldSession, ID: "nobody"}}))
	_, err := f.Release(ctx, "passing", passing)
	require.NoError(t, err)
	kept[mustStore(t, f, large, others).ID] = large
	third := mustStore(t, f, other, doomed)
	require.NoError(t, f.Checkpoint(ctx))
	for _, ref := range []*storage.StorageReference{before, third} {
		require.NoError(t, f.Delete(ctx, ref))
	}
	return kept
}

func requireErased(t testing.TB, f *engine.FileStore, baseDir string, kept map[string][]byte) {
	t.Helper()
	entries := allEntries(t, f, engine.Query{})
	require.Len(t, entries, len(kept))
	for _, e := range entries {
		require.True(t, bytes.Equal(kept[e.Reference.ID], mustRetrieve(t, f, &e.Reference)), e.Path)
		require.Len(t, allEntries(t, f, engine.Query{Digest: e.Digest}), 1)
	}
	require.Empty(t, damage(t, f))
	for _, text := range []string{"doomed", "erased-user"} {
		requireNoTrace(t, baseDir, text)
	}
}

func TestErase(t *testing.T) {
	for _, org := range storage.OrganizationModes() {
		for name, query := range map[string]engine.Query{
			"session": {SessionID: "doomed"}, "user": {UserID: "erased-user"}, "both": {SessionID: "doomed", UserID: "erased-user"},
		} {
			t.Run(fmt.Sprint(org, "/", name), func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Organization: org}
				f := mustOpen(t, config)
				kept := erasable(t, f)
				dry, err := f.Erase(ctx, query, engine.EraseOptions{DryRun: true})
				require.NoError(t, err)
				require.Len(t, allEntries(t, f, engine.Query{SessionID: "doomed"}), 3)
				require.Empty(t, allErasures(t, f))

				done, err := f.Erase(ctx, query, engine.EraseOptions{By: "officer", Reason: "asked for"})
				require.NoError(t, err)
				require.EqualValues(t, 3, done.References)
				require.EqualValues(t, 1, done.Blobs)
				require.EqualValues(t, len(small), done.FreedBytes)
				require.EqualValues(t, 2, done.SharedBlobs)
				require.EqualValues(t, len(shared)+len(other), done.SharedBytes)
				require.Zero(t, done.Failed)
				require.False(t, done.FinishedAt.IsZero())
				require.Equal(t, []int64{done.References, done.Blobs, done.FreedBytes, done.SharedBlobs, done.SharedBytes, done.Failed},
					[]int64{dry.References, dry.Blobs, dry.FreedBytes, dry.SharedBlobs, dry.SharedBytes, dry.Failed}, "the dry run said otherwise")
				if name == "session" {
					requireErased(t, f, config.BaseDir, kept)
				} else {
					require.NoError(t, f.Checkpoint(ctx))
					requireNoTrace(t, config.BaseDir, "erased-user")
				}

				again, err := f.Erase(ctx, query, engine.EraseOptions{})
				require.NoError(t, err)
				require.Zero(t, again.References)
				require.Zero(t, again.Moved, "everything was moved by the first")
				ledger := allErasures(t, f)
				require.Len(t, ledger, 2)
				require.Equal(t, done, ledger[0])
				require.NoError(t, f.Close())
				f = mustOpen(t, config)
				require.Equal(t, ledger, allErasures(t, f))
			})
		}
	}
}

func allErasures(t testing.TB, f *engine.FileStore) []engine.Erasure {
	t.Helper()
	var all []engine.Erasure
	for e, err := range f.Erasures(context.Background()) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func TestEraseRefuses(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	ref := mustStore(t, f, small, someIDs)
	for name, q := range map[string]engine.Query{
		"nothing asked": {}, "an order alone": {Order: engine.Newest}, "an order": {SessionID: "session", Order: engine.Oldest},
		"a limit": {SessionID: "session", Limit: 3}, "a cursor": {SessionID: "session", Cursor: "x"},
		"sizes that are none": {SizeFrom: 5, SizeTo: 3}, "an order of expiry": {Order: engine.Soonest},
	} {
		for _, dry := range []bool{true, false} {
			_, err := f.Erase(context.Background(), q, engine.EraseOptions{DryRun: dry})
			require.ErrorIs(t, err, storage.ErrInvalidQuery, name)
		}
	}
	_, err := f.Erase(context.Background(), engine.Query{SessionID: "s"}, engine.EraseOptions{By: strings.Repeat("x", engine.MaxEraseBy+1)})
	require.ErrorIs(t, err, storage.ErrInvalidQuery)
	require.Empty(t, allErasures(t, f))
	require.Equal(t, small, mustRetrieve(t, f, ref))
}

// What is held stays, is told of, and does not keep the rest from going.
func TestEraseLeavesWhatIsHeld(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	held := mustStore(t, f, small, someIDs)
	mustStore(t, f, other, someIDs)
	require.NoError(t, f.Hold(ctx, engine.Hold{Name: "case 7", Target: engine.HoldTarget{Kind: engine.HoldReference, ID: held.ID}}))
	for _, dry := range []bool{true, false} {
		e, err := f.Erase(ctx, engine.Query{SessionID: "session"}, engine.EraseOptions{DryRun: dry})
		require.NoError(t, err)
		require.EqualValues(t, 1, e.References)
		require.EqualValues(t, 1, e.Failed)
		require.Equal(t, held.ID, e.Failures[0].Ref)
		require.ErrorIs(t, e.Failures[0].Err, storage.ErrHeld)
		require.Contains(t, e.Failures[0].Reason, "case 7")
	}
	require.Equal(t, small, mustRetrieve(t, f, held))
	require.Len(t, allEntries(t, f, engine.Query{}), 1)
	require.Empty(t, allErasures(t, f)[0].Failures, "the ledger tells of no reference")
}

// The ledger knows again what it was about, and tells nothing of it.
func TestErasedQueryMatches(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	secret := storage.MediaMetadata{SessionID: "secret-session", UserID: "someone@example.com", Labels: map[string]string{"patient": "secret-label"}}
	mustStore(t, f, small, secret)
	mustStore(t, f, other, storage.MediaMetadata{SessionID: "secret-session", Policy: "36h"})
	mustStore(t, f, shared, secret)
	entries := allEntries(t, f, engine.Query{})
	queries := map[string]engine.Query{
		"session": {SessionID: "secret-session"}, "user and label": {UserID: "someone@example.com", Labels: secret.Labels},
		"digest": {Digest: entries[0].Digest}, "size": {SizeFrom: int64(len(small)), SizeTo: int64(len(small)) + 1},
		"type": {Type: "document", MimeType: "application/"}, "nothing": {SessionID: "secret"},
		"created": {CreatedTo: entries[1].Metadata.CreatedAt}, "added": {AddedFrom: entries[1].AddedAt, SessionID: "secret-session"},
		"policy": {Policy: "36h"}, "expires": {ExpiresTo: entries[1].ExpiresAt.Add(1)}, "expires later": {ExpiresFrom: entries[1].ExpiresAt.Add(1)},
		"never expires": {NeverExpires: true},
	}
	for name, q := range queries {
		dry, err := f.Erase(ctx, q, engine.EraseOptions{DryRun: true})
		require.NoError(t, err)
		var want, got []string
		for _, e := range allEntries(t, f, q) {
			want = append(want, e.Reference.ID)
		}
		for i := range entries {
			if dry.Query.Matches(&entries[i]) {
				got = append(got, entries[i].Reference.ID)
			}
		}
		require.Equal(t, want, got, name)
		require.EqualValues(t, len(want), dry.References, name)
	}
	done, err := f.Erase(ctx, queries["user and label"], engine.EraseOptions{})
	require.NoError(t, err)
	later := mustStore(t, f, small, secret)
	e := mustStat(t, f, later)
	require.False(t, done.Query.Matches(&e), "stored since")
	require.True(t, done.Query.Matches(&entries[0]))
	require.NoError(t, f.Delete(ctx, later))
	_, err = f.Erase(ctx, queries["session"], engine.EraseOptions{})
	require.NoError(t, err)
	require.NoError(t, f.Checkpoint(ctx))
	for _, text := range []string{"secret", "someone@"} {
		requireNoTrace(t, config.BaseDir, text)
	}
}

// An erasure that is stopped at a point, as by a crash, is finished by the next
// opening, and counts what it had done.
func TestCrashWhileErasing(t *testing.T) {
	for _, point := range []engine.FaultPoint{engine.FaultRemoved, engine.FaultLinked, engine.FaultMoved, engine.FaultSettled} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			var kept map[string][]byte
			setup(t, config, func(f *engine.FileStore) { kept = erasable(t, f) })
			c := &crash{point: point, from: config.BaseDir, copyDir: t.TempDir()}
			f, err := engine.Open(context.Background(), engine.WithFaults(config, c.fault))
			require.NoError(t, err)
			_, err = f.Erase(context.Background(), engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
			if point != engine.FaultMoved { // after the commit, so what fails then is only owed
				require.ErrorIs(t, err, errCrash)
			}
			require.True(t, c.reached.Load())
			require.NoError(t, c.copyErr)
			require.NoError(t, f.Abandon())
			for _, dir := range []string{config.BaseDir, c.copyDir} {
				config.BaseDir = dir
				f := mustOpen(t, config)
				if dir == c.copyDir {
					require.Eventually(t, func() bool {
						all := allErasures(t, f)
						return len(all) == 1 && !all[0].FinishedAt.IsZero()
					}, 10*time.Second, time.Millisecond)
				} else {
					_, err := f.ResumeErasures(context.Background())
					require.NoError(t, err)
				}
				require.NoError(t, f.Checkpoint(context.Background()))
				requireErased(t, f, dir, kept)
			}
		})
	}
}

// Killed again and again while it erases, it comes to its end.
func TestEraseBesideTraffic(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	const contents = 40
	data := func(i int) []byte { return bytesOf(3000+i, byte(i)) }
	for i := range contents {
		mustStore(t, f, data(i), storage.MediaMetadata{SessionID: "doomed", ConversationID: fmt.Sprint(i % 3)})
	}
	kept := make(chan map[string]int, 4)
	stop := make(chan struct{})
	for w := range cap(kept) {
		go func() {
			mine := map[string]int{}
			defer func() { kept <- mine }()
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ref, err := f.Store(ctx, content(data(i%contents)), storage.MediaMetadata{SessionID: fmt.Sprint("worker ", w)})
				if err != nil {
					t.Errorf("store: %v", err)
					return
				}
				mine[ref.ID] = i % contents
				if got, err := f.Retrieve(ctx, ref); err != nil || got == nil {
					t.Errorf("retrieve beside an erasure: %v", err)
					return
				}
				if i%3 == 0 {
					if err := f.Delete(ctx, ref); err != nil {
						t.Errorf("delete: %v", err)
						return
					}
					delete(mine, ref.ID)
				}
			}
		}()
	}
	done, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
	close(stop)
	require.NoError(t, err)
	require.EqualValues(t, contents, done.References)
	for range cap(kept) {
		for id, i := range <-kept {
			require.Equal(t, data(i), mustRetrieve(t, f, &storage.StorageReference{ID: id}))
		}
	}
	require.NoError(t, f.Checkpoint(ctx))
	requireNoTrace(t, config.BaseDir, "doomed")
}

func TestEraseStopsWithItsContext(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	kept := erasable(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(engine.Erasure) { cancel() }})
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
	all := allErasures(t, f)
	require.Len(t, all, 1)
	require.True(t, all[0].FinishedAt.IsZero())
	done, err := f.ResumeErasures(context.Background())
	require.NoError(t, err)
	require.Len(t, done, 1)
	requireErased(t, f, config.BaseDir, kept)
}

// What the background has finished before somebody asked is told of, once.
func TestResumeTellsOfWhatWasFinishedBefore(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, small, storage.MediaMetadata{SessionID: "doomed"})
		stop, cancel := context.WithCancel(ctx)
		_, err := f.Erase(stop, engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(engine.Erasure) { cancel() }})
		require.ErrorIs(t, err, context.Canceled)
	})
	f := mustOpen(t, config)
	require.Eventually(t, func() bool { return !allErasures(t, f)[0].FinishedAt.IsZero() }, time.Minute, time.Millisecond)
	done, err := f.ResumeErasures(ctx)
	require.NoError(t, err)
	require.Len(t, done, 1)
	require.EqualValues(t, 1, done[0].References)
	require.False(t, done[0].FinishedAt.IsZero())
	done, err = f.ResumeErasures(ctx)
	require.NoError(t, err)
	require.Empty(t, done)
}

// An erasure tells of each of its steps, up to the end.
func TestEraseProgress(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	for i := range 7 {
		mustStore(t, f, bytesOf(100, byte(i)), storage.MediaMetadata{SessionID: []string{"doomed", "other"}[i%2]})
	}
	last := map[engine.EraseStep]engine.EraseProgress{}
	done, err := f.Erase(t.Context(), engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(e engine.Erasure) { last[e.Far.Step] = e.Far }})
	require.NoError(t, err)
	require.Zero(t, done.Far)
	require.Equal(t, map[engine.EraseStep]engine.EraseProgress{
		engine.EraseCount:      {Step: engine.EraseCount, Done: 4},
		engine.EraseReferences: {Step: engine.EraseReferences, Done: 4, Total: 4},
		engine.EraseTraces:     {Step: engine.EraseTraces, Done: 3, Total: 3},
	}, last)
}

// A file of somebody else keeps the directory of a session, which is told of.
func TestEraseTellsOfForeignFiles(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	mustStore(t, f, small, someIDs)
	litter := filepath.Join(config.BaseDir, "session", ".DS_Store")
	require.NoError(t, os.WriteFile(litter, nil, 0o600))
	done, err := f.Erase(context.Background(), engine.Query{SessionID: "session"}, engine.EraseOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.References)
	require.EqualValues(t, 1, done.Failed)
	require.Equal(t, "session", done.Failures[0].Path)
	require.NoError(t, os.Remove(litter))
	done, err = f.Erase(context.Background(), engine.Query{SessionID: "session"}, engine.EraseOptions{})
	require.NoError(t, err)
	require.Zero(t, done.Failed)
	require.NoDirExists(t, filepath.Join(config.BaseDir, "session"))
}
