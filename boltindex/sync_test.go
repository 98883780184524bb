package boltindex_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// Staged bytes are durable before a row names them, and the additions of one
// transaction share the step.
func TestStagedBytesAreSyncedFirst(t *testing.T) {
	const writers = 64
	var mu sync.Mutex // guards the rest
	synced := map[storage.BlobKey]bool{}
	calls := 0
	var about sync.WaitGroup // to add
	about.Add(writers)
	var x *boltindex.Index
	x = mustOpenConfig(t, t.TempDir(), boltindex.Config{Sync: func(keys []storage.BlobKey) error {
		about.Wait()
		time.Sleep(10 * time.Millisecond) // others come while this one goes on
		mu.Lock()
		defer mu.Unlock()
		calls++
		for _, key := range keys {
			_, err := x.Blob(context.Background(), key)
			if !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("blob %s has a row before its bytes are durable: %v", key, err)
			}
			synced[key] = true
		}
		return nil
	}})
	var all sync.WaitGroup
	for w := range byte(writers) {
		all.Go(func() {
			add := addition(storage.UUID{0: w + 1, 15: w}, storage.MediaMetadata{})
			about.Done()
			if _, err := x.Add(context.Background(), add); err != nil {
				t.Errorf("add: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !synced[add.Blob.Key] {
				t.Errorf("blob %s was added and not synced", add.Blob.Key)
			}
		})
	}
	all.Wait()
	require.Less(t, calls, writers, "no two shared a step")

	calls = 0
	unstaged := addition(storage.UUID{0: 1, 1: 1, 15: 0}, storage.MediaMetadata{})
	unstaged.Staged = false
	_, err := x.Add(t.Context(), unstaged)
	require.NoError(t, err)
	_, err = x.Remove(t.Context(), idOf(unstaged.Ref.UUID))
	require.NoError(t, err)
	require.Zero(t, calls, "nothing was staged")
	mustClose(t, x)
}

// When the bytes cannot be made durable, no addition of them is made, and the
// others of the group are.
func TestFailedSyncOfStagedBytes(t *testing.T) {
	broken := errors.New("the disk gave up")
	fails := false
	x := mustOpenConfig(t, t.TempDir(), boltindex.Config{Sync: func([]storage.BlobKey) error {
		if fails {
			return broken
		}
		return nil
	}})
	for i := range byte(40) {
		mustAdd(t, x, storage.UUID{0: i + 1, 15: i}, storage.MediaMetadata{SessionID: "s"})
	}
	fails = true
	var all sync.WaitGroup
	for i := range byte(20) {
		all.Go(func() {
			_, err := x.Add(context.Background(), addition(storage.UUID{0: i + 1, 1: 1, 15: 100 + i}, storage.MediaMetadata{}))
			if !errors.Is(err, broken) {
				t.Errorf("add of bytes that are not durable: %v", err)
			}
		})
		all.Go(func() {
			add := addition(storage.UUID{0: i + 1, 1: 2, 15: i}, storage.MediaMetadata{})
			add.Staged = false
			if _, err := x.Add(context.Background(), add); err != nil {
				t.Errorf("add to a blob that is there: %v", err)
			}
		})
		all.Go(func() {
			removal, err := x.Remove(context.Background(), idOf(storage.UUID{0: 20 + i + 1, 15: 20 + i}))
			if err != nil || !removal.Last {
				t.Errorf("remove: %+v, %v", removal, err)
			}
		})
	}
	all.Wait()
	require.Equal(t, storage.Counters{
		Refs: 40, Blobs: 20, LogicalBytes: 40000, PhysicalBytes: 20000, NoConversation: 40, NoSession: 20, NoRun: 40,
	}, countersOf(t, x))
	mustClose(t, x)
}
