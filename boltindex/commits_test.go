package boltindex_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

func TestCommits(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	before := x.Commits()
	for i := range byte(3) {
		mustAdd(t, x, storage.UUID{5: i + 1, 6: 0x70}, storage.MediaMetadata{SessionID: "s"})
	}
	require.Equal(t, before+3, x.Commits(), "each addition came alone")
	mustClose(t, x)
	require.GreaterOrEqual(t, mustOpen(t, dir).Commits(), before+3)
}

// Every record is told of once, with what it holds, before those who wait for it
// go on.
func TestCommitted(t *testing.T) {
	const writers, each = 16, 10
	var told []storage.Commit
	x := mustOpenConfig(t, t.TempDir(), boltindex.Config{
		Sync:      func([]storage.BlobKey) error { time.Sleep(time.Microsecond); return nil },
		Committed: func(c storage.Commit) { told = append(told, c) },
	})
	before := x.Commits()
	var all sync.WaitGroup
	for w := range byte(writers) {
		all.Go(func() {
			for i := range byte(each) {
				mustAdd(t, x, storage.UUID{5: i + 1, 6: 0x70, 7: w}, storage.MediaMetadata{})
			}
		})
	}
	all.Wait()
	require.EqualValues(t, x.Commits()-before, len(told))
	var sum storage.Commit
	for _, c := range told {
		require.Positive(t, c.Operations)
		require.Zero(t, c.Bytes%4096, "whole blocks of the log")
		require.Positive(t, c.Bytes)
		require.Positive(t, c.Sync)
		require.Greater(t, c.Duration, c.Sync)
		sum.Operations += c.Operations
		sum.Staged += c.Staged
	}
	require.Equal(t, writers*each, sum.Operations)
	require.Equal(t, writers*each, sum.Staged)

	// What changes nothing is no group, nor is what could not be committed.
	told = nil
	_, err := x.Remove(t.Context(), idOf(storage.UUID{9}))
	require.NoError(t, err)
	unstaged := addition(storage.UUID{0: 9, 6: 0x70, 15: 7}, storage.MediaMetadata{})
	unstaged.Staged = false
	_, err = x.Add(t.Context(), unstaged)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.Empty(t, told)
	mustClose(t, x)
}
