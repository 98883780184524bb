package indextest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// testConcurrent has many goroutines add and remove references of few blobs,
// each keeping account of its own.
func testConcurrent(f *fixture) {
	const goroutines, rounds, blobs = 32, 24, 3
	var mu sync.Mutex // guards the account
	live := map[storage.UUID]string{}
	var unlinks, lasts int
	var all sync.WaitGroup
	for g := range uint64(goroutines) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, g))
			mine := map[storage.ID]string{}
			last := 0
			for i := range uint64(rounds) {
				name := fmt.Sprint("blob ", random.IntN(blobs))
				add := newAddition(name, g<<32|i+1, storage.MediaMetadata{SessionID: name, UserID: fmt.Sprint(g)})
				// As a store does it: first without bytes, then with them.
				add.Staged = false
				_, err := f.x.Add(f.ctx, add)
				if errors.Is(err, storage.ErrNotFound) {
					add.Staged = true
					_, err = f.x.Add(f.ctx, add)
				}
				if err != nil {
					f.t.Errorf("add: %v", err)
					return
				}
				mine[idOf(add)] = name
				for id := range mine {
					if random.IntN(3) == 0 {
						continue
					}
					removal, err := f.x.Remove(f.ctx, id)
					if err != nil || !removal.Found || removal.Last != (removal.Blob.Refs == 0) {
						f.t.Errorf("remove: %+v, %v", removal, err)
						return
					}
					if removal.Last {
						last++
					}
					delete(mine, id)
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			lasts += last
			for id, name := range mine {
				live[id.UUID] = name
			}
		})
	}
	all.Wait()
	require.False(f.t, f.t.Failed())

	counts := map[string]int64{}
	for _, name := range live {
		counts[name]++
	}
	for _, pair := range f.refs(storage.RefFilter{}, 100) {
		require.Equal(f.t, keyOf(live[pair.Ref.UUID]), pair.Ref.Blob)
		delete(live, pair.Ref.UUID)
	}
	require.Empty(f.t, live, "references that were acknowledged and are not there")
	for name, count := range counts {
		require.Equal(f.t, count, f.mustBlob(keyOf(name)).Refs, name)
		require.Len(f.t, f.refs(storage.RefFilter{SessionID: name}, 100), int(count))
	}
	require.Len(f.t, f.blobRows(10), len(counts))
	debt := f.debt()
	unlinks = len(debt.Unlinks)
	require.Equal(f.t, lasts, unlinks)
	// Each round adds one; what is not live was removed, by a tombstone or an
	// unlink.
	total := f.counters().Refs
	require.Len(f.t, debt.Mirrors, goroutines*rounds+(goroutines*rounds-int(total)-unlinks))
}

// Of all who remove a reference at once, one ends it.
func testConcurrentRemovals(f *fixture) {
	for range 10 {
		kept, id := f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("a", storage.MediaMetadata{})
		var found atomic.Int64
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				removal, err := f.x.Remove(f.ctx, id)
				if err != nil {
					f.t.Errorf("remove: %v", err)
				}
				if removal.Found {
					found.Add(1)
				}
			})
		}
		all.Wait()
		require.Equal(f.t, int64(1), found.Load())
		require.Equal(f.t, int64(1), f.mustBlob(keyOf("a")).Refs)
		require.True(f.t, f.mustRemove(kept).Last)
	}
}
