package boltindex

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func mustOpenShared(t *testing.T) *Index {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	x, err := Open(context.Background(), Config{Root: root, Create: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, x.Close())
		require.NoError(t, root.Close())
	})
	return x
}

// markMode changes one row, that of the organization mode, without a meaning.
func markMode(t *testing.T, x *Index, text string) {
	t.Helper()
	require.NoError(t, x.change(false, func(tx *txn) error { return tx.put(bucketMeta, keyOrganization, []byte(text)) }))
}

func (x *Index) sharedNow() *reading {
	x.layersMu.RLock()
	defer x.layersMu.RUnlock()
	return x.shared
}

// Views share one transaction between two flushes; one that a flush finds in use
// goes on seeing what it saw, and ends with its last view.
func TestReadingIsShared(t *testing.T) {
	x := mustOpenShared(t)
	markMode(t, x, "before")
	require.NoError(t, x.flush())
	first := x.sharedNow()
	require.NotNil(t, first)
	require.NoError(t, x.view(func(r *rows) error {
		require.Same(t, first.state, r.state)
		return x.view(func(second *rows) error {
			require.Same(t, first.state, second.state)
			require.EqualValues(t, 3, first.users.Load())
			return nil
		})
	}))
	require.EqualValues(t, 1, first.users.Load())

	x.layersMu.RLock()
	held, err := x.hold()
	x.layersMu.RUnlock()
	require.NoError(t, err)
	markMode(t, x, "after")
	require.NoError(t, x.flush())
	require.NotSame(t, first, x.sharedNow())
	value, err := held.state.get(bucketMeta, keyOrganization)
	require.NoError(t, err)
	require.Equal(t, "before", string(value))
	require.NotNil(t, first.tx.DB(), "in use")
	require.NoError(t, held.release())
	require.Nil(t, first.tx.DB(), "ended")
	value, err = x.row(bucketMeta, keyOrganization)
	require.NoError(t, err)
	require.Equal(t, "after", string(value))
}

// A transaction that stayed open would keep bbolt from using free pages again.
func TestFlushesUsePagesAgain(t *testing.T) {
	x := mustOpenShared(t)
	end := func() (end uint64) {
		require.NoError(t, x.viewBolt(func(s *state) error { end = s.end; return nil }))
		return end
	}
	for n := range 10 {
		markMode(t, x, fmt.Sprint(n))
		require.NoError(t, x.flush())
	}
	settled := end()
	for n := range 200 {
		markMode(t, x, fmt.Sprint(n))
		require.NoError(t, x.flush())
		_, err := x.row(bucketMeta, keyOrganization)
		require.NoError(t, err)
	}
	require.Equal(t, settled, end())
}

// What a view sees is of one moment, however many flushes there are meanwhile.
func TestViewsBesideFlushes(t *testing.T) {
	x := mustOpenShared(t)
	markMode(t, x, "0")
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := 0
			for !stop.Load() {
				value, err := x.row(bucketMeta, keyOrganization)
				if err != nil {
					t.Errorf("row: %v", err)
					return
				}
				n := 0
				if _, err := fmt.Sscan(string(value), &n); err != nil || n < last {
					t.Errorf("%q after %d: %v", value, last, err)
					return
				}
				last = n
			}
		})
	}
	for begun, n := time.Now(), 1; time.Since(begun) < time.Second; n++ {
		markMode(t, x, fmt.Sprint(n))
		if err := x.flush(); err != nil {
			t.Errorf("flush %d: %v", n, err)
			break
		}
	}
	stop.Store(true)
	readers.Wait()
	markMode(t, x, string(storage.OrganizationBySession))
}
