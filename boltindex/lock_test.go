package boltindex_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

func TestSecondOpenIsLocked(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	for _, timeout := range []time.Duration{0, 50 * time.Millisecond} {
		start := time.Now()
		_, err := open(t.Context(), t, dir, boltindex.Config{LockTimeout: timeout})
		require.ErrorIs(t, err, storage.ErrLocked)
		require.ErrorContains(t, err, path(dir))
		require.GreaterOrEqual(t, time.Since(start), timeout)
		require.Less(t, time.Since(start), timeout+10*time.Second)
	}
	mustClose(t, x)
	mustClose(t, mustOpen(t, dir))
}

func TestOpenWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	first := mustOpen(t, dir)
	id := storage.UUID{1}
	mustAdd(t, first, id, storage.MediaMetadata{})
	type opened struct {
		x   *boltindex.Index
		err error
	}
	done := make(chan opened)
	go func() {
		x, err := open(context.Background(), t, dir, boltindex.Config{LockTimeout: time.Minute})
		done <- opened{x, err}
	}()
	select {
	case second := <-done:
		require.Fail(t, "opened while locked", "%v", second.err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, first.Close())
	second := <-done
	require.NoError(t, second.err)
	require.Equal(t, []storage.UUID{id}, uuids(t, second.x))
	mustClose(t, second.x)
}

func TestOpenHonoursContextWhileLocked(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	defer mustClose(t, x)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := open(ctx, t, dir, boltindex.Config{LockTimeout: time.Hour})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), time.Minute)
}

func TestOpenWithoutCreate(t *testing.T) {
	dir := t.TempDir()
	_, err := open(t.Context(), t, dir, boltindex.Config{})
	require.ErrorIs(t, err, storage.ErrNoStore)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStoreIDStays(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	id := x.StoreID()
	require.NotZero(t, id)
	require.NoError(t, x.Close())
	x = mustOpen(t, dir)
	require.Equal(t, id, x.StoreID())
	mustClose(t, x)
	other := mustOpen(t, t.TempDir())
	require.NotEqual(t, id, other.StoreID())
	mustClose(t, other)
}
