package workload_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

type script func(context.Context, workload.Target, uint64, *workload.Journal) error

// mustRun runs a workload in which nothing fails.
func mustRun(t *testing.T, run script) (workload.Target, *workload.Journal) {
	t.Helper()
	target, j := workload.Target{Dir: filepath.Join(t.TempDir(), "store")}, workload.NewJournal(nil, nil)
	require.NoError(t, run(context.Background(), target, 1, j))
	require.Empty(t, j.Failed())
	return target, j
}

// cutInside is a journal as it was when the last operation of a kind was under way.
func cutInside(j *workload.Journal, kind workload.Kind) (cut *workload.Journal) {
	for _, op := range j.Ops() {
		if op.Kind == kind {
			cut = j.Cut(op.Ended-1, nil)
		}
	}
	return cut
}

// dropOne deletes a reference of a store behind the back of its journal.
func dropOne(t *testing.T, dir string) {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir})
	require.NoError(t, err)
	for e, err := range f.List(context.Background(), engine.Query{Policy: "2900-01-01T00:00:00Z", Limit: 1}) {
		require.NoError(t, err)
		require.NoError(t, f.Delete(context.Background(), &e.Reference))
	}
	require.NoError(t, f.Close())
}

// The judge finds what is wrong with stores that were made of another one, and with one
// whose index was rebuilt.
func TestJudgeOfMaintenance(t *testing.T) {
	const gone = "an acknowledged reference is there"
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			names, err := filepath.Glob(dir + name)
			require.NoError(t, err)
			require.NotEmpty(t, names)
			for _, name := range names {
				require.NoError(t, os.RemoveAll(name))
			}
		}
	}
	drop := func(what string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { dropOne(t, dir+what) }
	}
	for _, c := range []struct {
		name   string
		run    script
		harm   func(t *testing.T, dir string)
		broken string
	}{
		{"a rebuild", workload.RunRebuild, nil, ""},
		{"a backup", workload.RunBackup, nil, ""},
		{"a restore", workload.RunRestore, nil, ""},
		{"an import", workload.RunImport, nil, ""},
		{"a lost reference after a rebuild", workload.RunRebuild, drop(""), gone},
		{"a damaged index that is gone", workload.RunRebuild, remove("/.mediabolt/index.damaged-*/index.db"), "a damaged index is set aside"},
		{"a backup that is gone", workload.RunBackup, remove(" backup"), gone},
		{"a backup that lacks a reference", workload.RunBackup, drop(" backup"), gone},
		{"a backup without its index", workload.RunBackup, remove(" backup/.mediabolt/index.db"), "the store opens"},
		{"a backup without its holds", workload.RunBackup, remove(" backup/.mediabolt/holds"), "an acknowledged hold is there"},
		{"a restored store that is gone", workload.RunRestore, remove(" restored"), gone},
		{"a restored store that lacks a reference", workload.RunRestore, drop(" restored"), gone},
		{"an import that lacks a reference", workload.RunImport, drop(" imported"), gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target, j := mustRun(t, c.run)
			if c.harm == nil {
				require.Empty(t, promises(t, target, j))
				return
			}
			c.harm(t, target.Dir)
			require.Contains(t, promises(t, target, j), c.broken)
		})
	}
}

// What was under way may be there as a whole, as it was before, or refused, and goes on;
// what opens and is none of that is found.
func TestJudgeOfCopiesUnderWay(t *testing.T) {
	for _, c := range []struct {
		kind   workload.Kind
		run    script
		beside string
		broken string // where one reference is lacking
	}{
		{workload.KindBackup, workload.RunBackup, " backup", "an acknowledged reference is there"},
		{workload.KindRestore, workload.RunRestore, " restored", "an acknowledged reference is there"},
		{workload.KindImport, workload.RunImport, " imported", ""},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			t.Parallel()
			target, j := mustRun(t, c.run)
			require.Empty(t, promises(t, target, cutInside(j, c.kind)), "it is whole")
			target, j = mustRun(t, c.run) // a judge makes another backup
			dropOne(t, target.Dir+c.beside)
			broken := promises(t, target, cutInside(j, c.kind))
			if c.broken == "" {
				require.Empty(t, broken, "another import adds it")
			} else {
				require.Contains(t, broken, c.broken)
			}
			target, j = mustRun(t, c.run)
			require.NoError(t, os.RemoveAll(target.Dir+c.beside))
			at := cutInside(j, c.kind)
			if c.kind == workload.KindBackup {
				require.Contains(t, promises(t, target, at), "what was interrupted is refused and says how to go on", "there was an earlier one")
				return
			}
			require.Empty(t, promises(t, target, at), "it had not begun")
		})
	}
}
