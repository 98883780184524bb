package boltindex

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// A flush that takes many transactions shows readers one state all the time, and so
// does an opening after a crash between any two of them.
func TestFlushInTransactions(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 1, 400)
	live := map[int]bool{}
	for i := 1; i < 400; i++ {
		live[i] = true
	}
	require.NoError(t, x.flush())
	x.bolt.leaves = 2
	random := rand.New(rand.NewPCG(3, 0))
	for range 100 {
		i := 1 + random.IntN(499)
		if live[i] {
			removeRef(t, x, i)
			delete(live, i)
		} else {
			require.NoError(t, addRef(x, i))
			live[i] = true
		}
	}

	x.writing.Lock()
	x.freeze()
	x.writing.Unlock()
	x.flushing.Lock()
	require.NoError(t, x.unshare())
	before, err := x.applied()
	require.NoError(t, err)
	// What fails here must not end the test before the locks are let go.
	var crashed []string
	var applied []uint64
	var seen []map[int]bool
	look := func() error {
		now, err := x.applied()
		applied, seen = append(applied, now), append(seen, refsOf(t, x, 500))
		return err
	}
	err = x.bolt.transfer(x.frozen, x.frozenTo, func(fn func(*bolt.Tx) error) error {
		at := filepath.Join(t.TempDir(), "crashed")
		crashed = append(crashed, at)
		// Between its commit and its sums, for which readers wait.
		return errors.Join(look(), x.update(fn), os.CopyFS(at, os.DirFS(dir)))
	})
	err = errors.Join(err, look())
	x.share()
	to := x.frozenTo
	x.flushing.Unlock()
	require.NoError(t, err)
	require.Greater(t, len(crashed), 20, "two leaves at a time")
	for n, now := range applied {
		want := before
		if n == len(crashed) {
			want = to
		}
		require.Equal(t, want, now, "after transaction %d of %d", n, len(crashed))
		require.Equal(t, live, seen[n])
	}
	require.NoError(t, x.flushFrozen(false))
	mustVerify(t, x)
	require.NoError(t, x.Close())

	for _, at := range append(crashed, dir) {
		x := indexOf(t, at)
		require.Equal(t, live, refsOf(t, x, 500))
		mustVerify(t, x)
		more := maps.Clone(live)
		for i := 500; i < 520; i++ {
			require.NoError(t, addRef(x, i))
			more[i] = true
		}
		require.NoError(t, x.flush())
		require.Equal(t, more, refsOf(t, x, 520))
		require.NoError(t, x.Close())
	}
}
