package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// What was erased after a backup does not come back, nor does a trace of its ID, as
// long as a ledger is there that tells; what was erased before never does.
func TestRestoreHonoursErasures(t *testing.T) {
	ctx := context.Background()
	for _, from := range []string{"its store", "a newer backup", "nowhere"} {
		t.Run(from, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
			require.NoError(t, err)
			erase := func(q engine.Query) {
				_, err := f.Erase(ctx, q, engine.EraseOptions{By: "officer"})
				require.NoError(t, err)
			}
			mustStore(t, f, other, storage.MediaMetadata{SessionID: "before"})
			erase(engine.Query{SessionID: "before"})
			first := mustStore(t, f, shared, storage.MediaMetadata{SessionID: "private-session", UserID: "u"})
			stays := mustStore(t, f, shared, storage.MediaMetadata{SessionID: "public", UserID: "u"})
			mustStore(t, f, small, storage.MediaMetadata{SessionID: "private-session"})
			labelled := mustStore(t, f, large, storage.MediaMetadata{SessionID: "public", Labels: map[string]string{"a": "1", "b": "2"}})
			saved, newer := filepath.Join(t.TempDir(), "saved"), filepath.Join(t.TempDir(), "newer")
			mustBackup(t, f, saved, engine.BackupOptions{})
			erase(engine.Query{SessionID: "private-session"})
			erase(engine.Query{Labels: map[string]string{"b": "2"}})
			later := mustStore(t, f, small, storage.MediaMetadata{SessionID: "private-session"})
			mustBackup(t, f, newer, engine.BackupOptions{})
			require.NoError(t, f.Close())
			opts := engine.RestoreOptions{}
			if from != "its store" {
				require.NoError(t, os.Rename(dir, dir+"-lost"))
			}
			if from == "a newer backup" {
				opts.Ledgers = []string{newer}
			}

			dest := filepath.Join(t.TempDir(), "dest")
			b, err := engine.Restore(ctx, saved, dest, opts)
			require.NoError(t, err)
			g := mustOpen(t, engine.FileStoreConfig{BaseDir: dest, EnableDeduplication: true})
			all := listedOf(t, g)
			require.Contains(t, all, stays.ID)
			require.NotContains(t, all, later.ID)
			require.Equal(t, shared, mustRetrieve(t, g, stays))
			var ledger []engine.Erasure
			for e, err := range g.Erasures(ctx) {
				require.NoError(t, err)
				require.False(t, e.FinishedAt.IsZero())
				ledger = append(ledger, e)
			}
			if from == "nowhere" {
				require.Zero(t, b.Erased)
				require.Len(t, all, 4)
				require.Len(t, ledger, 1)
				return
			}
			require.EqualValues(t, 3, b.Erased)
			require.Len(t, all, 1)
			require.NotContains(t, all, first.ID)
			require.NotContains(t, all, labelled.ID)
			require.Len(t, ledger, 3)
			for _, name := range treeFiles(t, dest) {
				require.NotContains(t, name, "private-session")
				if strings.HasSuffix(name, ".meta") {
					require.NotContains(t, readText(t, filepath.Join(dest, name)), "private-session")
				}
			}
		})
	}
}

// Holds go with a backup, and hold in what is restored.
func TestBackupHasTheHolds(t *testing.T) {
	ctx := context.Background()
	f, _ := mixedStore(t)
	hold := engine.Hold{Name: "case", Target: engine.HoldTarget{Kind: engine.HoldSession, ID: "s1"}, At: time.Unix(1, 0).UTC()}
	require.NoError(t, f.Hold(ctx, hold))
	saved, dest := filepath.Join(t.TempDir(), "saved"), filepath.Join(t.TempDir(), "dest")
	mustBackup(t, f, saved, engine.BackupOptions{})
	_, err := f.ReleaseAll(ctx, "case")
	require.NoError(t, err)
	_, err = engine.Restore(ctx, saved, dest, engine.RestoreOptions{})
	require.NoError(t, err)
	g := mustOpen(t, engine.FileStoreConfig{BaseDir: dest})
	for id, e := range listedOf(t, g) {
		if e.Metadata.SessionID == "s1" {
			require.ErrorIs(t, g.Delete(ctx, &storage.StorageReference{ID: id}), storage.ErrHeld)
		}
	}
	_, err = f.ReleaseAll(ctx, "case")
	require.NoError(t, err)
	mustBackup(t, f, saved, engine.BackupOptions{})
	for _, err := range holdsOf(t, saved) {
		require.NoError(t, err)
		t.Fatal("a hold that was released is still in the backup")
	}
}

func holdsOf(t *testing.T, dir string) func(func(engine.Hold, error) bool) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir})
	return f.Holds(context.Background())
}

// A change of a reference while a backup reads is not in it.
func TestRevisionBesideABackup(t *testing.T) {
	ctx := context.Background()
	f, _ := mixedStore(t)
	ref := mustStore(t, f, []byte("counted"), storage.MediaMetadata{})
	require.NoError(t, f.SetCount(ctx, ref, 2))
	want := listedOf(t, f)
	dest := filepath.Join(t.TempDir(), "dest")
	_, err := f.Backup(ctx, dest, engine.BackupOptions{Progress: func(_ engine.BackupStep, done, _ int64) {
		if done == 1 {
			require.NoError(t, f.SetCount(ctx, ref, 7))
		}
	}})
	require.NoError(t, err)
	require.Equal(t, want, openedBackup(t, dest))
	require.EqualValues(t, 7, mustStat(t, f, ref).Count)

	// While its pages are read, or before.
	for _, late := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "store")
		var before, after func() // the first page is read
		seams := engine.WithSeams(engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true}, func(x engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			return &pagedIndex{Index: x, before: &before, after: &after}, b
		})
		g := mustOpen(t, seams)
		counted := mustStore(t, g, []byte("counted"), storage.MediaMetadata{})
		gone := mustStore(t, g, []byte("gone"), storage.MediaMetadata{})
		want := listedOf(t, g)
		change := func() {
			require.NoError(t, g.SetCount(ctx, counted, 3))
			require.NoError(t, g.SetCount(ctx, counted, 4))
			require.NoError(t, g.Delete(ctx, gone))
			mustStore(t, g, []byte("new"), storage.MediaMetadata{})
		}
		if late {
			after = change
		} else {
			before = change
		}
		dest := filepath.Join(t.TempDir(), "dest")
		mustBackup(t, g, dest, engine.BackupOptions{})
		require.Equal(t, want, openedBackup(t, dest), "late=%t", late)
	}
}

// pagedIndex calls a function once, before or after a page of references.
type pagedIndex struct {
	engine.Index
	before, after *func()
}

func (x *pagedIndex) Refs(ctx context.Context, filter storage.RefFilter, after storage.UUID, limit int) ([]storage.RefPair, storage.UUID, bool, error) {
	runOnce(x.before)
	page, next, more, err := x.Index.Refs(ctx, filter, after, limit)
	runOnce(x.after)
	return page, next, more, err
}

func runOnce(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

func readText(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(data)
}
