package boltindex_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// names are those of the files in dir.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestConcurrentFirstOpensHaveOneWinner(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		const count = 8
		indexes, errs := make([]*boltindex.Index, count), make([]error, count)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range count {
			all.Go(func() {
				<-start
				indexes[i], errs[i] = open(context.Background(), t, dir, boltindex.Config{Create: true})
			})
		}
		close(start)
		all.Wait()
		var winner *boltindex.Index
		for i, err := range errs {
			if err != nil {
				require.ErrorIs(t, err, storage.ErrLocked)
				continue
			}
			require.Nil(t, winner, "two hold the index")
			winner = indexes[i]
		}
		require.NotNil(t, winner)
		id := winner.StoreID()
		mustAdd(t, winner, storage.UUID{1}, storage.MediaMetadata{})
		require.NoError(t, winner.Close())
		x := mustOpen(t, dir)
		require.Equal(t, id, x.StoreID())
		require.Equal(t, []storage.UUID{{1}}, uuids(t, x))
		mustClose(t, x)
		require.Equal(t, []string{"index.db", "index.sums", "log.0", "log.1", "reserve"}, names(t, dir))
	}
}

func TestConcurrentFirstOpensOfProcesses(t *testing.T) {
	for range 3 {
		dir := t.TempDir()
		var children []*child
		for range 5 {
			children = append(children, startChild(t, "open", dir))
		}
		winners := 0
		for _, c := range children {
			result, ok := c.line()
			require.True(t, ok, c.errors.String())
			if result == "<nil>" {
				winners++
			} else {
				require.Contains(t, result, storage.ErrLocked.Error())
			}
		}
		require.Equal(t, 1, winners)
		for _, c := range children {
			require.NoError(t, c.in.Close())
			require.NoError(t, c.cmd.Wait(), c.errors.String())
		}
		mustClose(t, mustOpen(t, dir))
		require.Equal(t, []string{"index.db", "index.sums", "log.0", "log.1", "reserve"}, names(t, dir))
	}
}

func TestLeftoversOfACrashWhileCreating(t *testing.T) {
	for _, made := range []bool{false, true} {
		dir := t.TempDir()
		if made {
			mustClose(t, mustOpen(t, dir))
		}
		for _, name := range []string{"index.db.1234.tmp", "index.db.5678.tmp", "index.db.tmpx", "note.tmp"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("partial"), 0o600))
		}
		mustClose(t, mustOpen(t, dir))
		require.Equal(t, []string{"index.db", "index.db.tmpx", "index.sums", "log.0", "log.1", "note.tmp", "reserve"}, names(t, dir))
	}
}

func TestFileModes(t *testing.T) {
	for mode, want := range map[os.FileMode]os.FileMode{0: 0o600, 0o640: 0o640} {
		dir := t.TempDir()
		mustClose(t, mustOpenConfig(t, dir, boltindex.Config{FileMode: mode}))
		for _, name := range names(t, dir) {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, want, info.Mode(), name)
		}
	}
}
