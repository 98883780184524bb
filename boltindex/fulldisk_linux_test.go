package boltindex_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/storage"
)

// smallDisk is a directory on a filesystem of its own, of 4 MiB: some kernels
// give files on it 1 MiB at a time.
func smallDisk(t testing.TB) string {
	t.Helper()
	return diskOf(t, "4m")
}

// diskOf is a directory on a filesystem of its own, of a size.
func diskOf(t testing.TB, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		skip.Proof(t, "mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		skip.Proof(t, "mount tmpfs: "+err.Error())
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill takes all room that the disk of dir has left.
func fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	for chunk := bytes.Repeat([]byte("x"), 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			chunk = chunk[:len(chunk)/2]
		}
	}
	require.NoError(t, f.Close())
}

func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	dir := smallDisk(t)
	reserve := filepath.Join(dir, "reserve")
	x := mustOpen(t, dir)
	require.FileExists(t, reserve)
	var live []storage.UUID
	add := func() error {
		u := storage.UUID{0: byte(len(live) >> 8), 1: byte(len(live)), 2: 1, 15: byte(len(live) / 2)}
		_, err := x.Add(ctx, addition(u, storage.MediaMetadata{SessionID: "s"}))
		if err == nil {
			live = append(live, u)
		}
		return err
	}
	for range 200 {
		require.NoError(t, add())
	}
	fill(t, dir)

	// Free pages inside the file take some more; then it must be refused.
	var err error
	for range 100000 {
		if err = add(); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.ErrorContains(t, err, path(dir))
	before := countersOf(t, x)
	for range 3 {
		require.ErrorIs(t, add(), storage.ErrDiskSpace)
	}
	require.Equal(t, before, countersOf(t, x))
	require.Equal(t, int64(len(live)), before.Refs)
	require.Equal(t, live, uuids(t, x))
	require.FileExists(t, reserve, "the reserve is for deletions only")

	for len(live) > 100 {
		removal, err := x.Remove(ctx, idOf(live[len(live)-1]))
		require.NoError(t, err)
		require.True(t, removal.Found)
		live = live[:len(live)-1]
	}
	require.Equal(t, live, uuids(t, x))
	debt, err := x.Debt(ctx)
	require.NoError(t, err)
	require.NoError(t, x.Settle(ctx, debt))
	mustClose(t, x)

	x = mustOpen(t, dir)
	require.Equal(t, live, uuids(t, x))
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	require.NoError(t, x.Settle(ctx, storage.Debt{}))
	require.FileExists(t, reserve, "made again once there is room")
	require.NoError(t, add())
	require.Equal(t, live, uuids(t, x))
	mustClose(t, x)
	require.ElementsMatch(t, []string{"index.db", "index.sums", "log.0", "log.1", "reserve"}, names(t, dir))
}

// On a disk that is full from the start nothing half-made stays.
func TestFullDiskAtCreation(t *testing.T) {
	dir := smallDisk(t)
	fill(t, dir)
	_, err := open(t.Context(), t, dir, boltindex.Config{Create: true})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.Equal(t, []string{"filler"}, names(t, dir))
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	mustClose(t, mustOpen(t, dir))
}

// Deletions at once with additions on a full disk: each tells its own result.
func TestFullDiskMixedGroup(t *testing.T) {
	ctx := context.Background()
	dir := smallDisk(t)
	x := mustOpen(t, dir)
	for i := range byte(100) {
		mustAdd(t, x, storage.UUID{0: i + 1, 15: i}, storage.MediaMetadata{SessionID: "s"})
	}
	fill(t, dir)
	results := make(chan error)
	const count = 40
	for i := range byte(count) {
		go func() {
			removal, err := x.Remove(ctx, idOf(storage.UUID{0: i + 1, 15: i}))
			if err == nil && !removal.Last {
				t.Errorf("removal %+v", removal)
			}
			results <- err
		}()
		go func() {
			u := storage.UUID{0: i + 1, 1: 1, 15: 100 + i}
			m := storage.MediaMetadata{Labels: map[string]string{"k": string(bytes.Repeat([]byte("v"), storage.MaxLabelValueLength))}}
			_, err := x.Add(ctx, addition(u, m))
			if err != nil && !errors.Is(err, storage.ErrDiskSpace) {
				t.Errorf("add: %v", err)
			} else {
				err = nil
			}
			results <- err
		}()
	}
	for range 2 * count {
		require.NoError(t, <-results)
	}
	left := map[storage.UUID]bool{}
	for _, u := range uuids(t, x) {
		left[u] = true
	}
	for i := range byte(100) {
		require.Equal(t, i >= count, left[storage.UUID{0: i + 1, 15: i}], "reference %d", i)
	}
	mustClose(t, x)
}

// A disk without room for a compaction says so beforehand; one that fills up
// meanwhile ends it. All stays as it was, and works on.
func TestFullDiskCompaction(t *testing.T) {
	dir := diskOf(t, "16m")
	x := mustOpen(t, dir)
	for i := range byte(200) {
		mustAdd(t, x, storage.UUID{0: i + 1, 15: i}, storage.MediaMetadata{SessionID: "s"})
	}
	require.NoError(t, x.Flush())
	check := func(what string) {
		t.Helper()
		_, err := x.Compact(t.Context(), false, nil)
		require.ErrorIs(t, err, storage.ErrDiskSpace, what)
		require.ErrorContains(t, err, path(dir))
		require.ElementsMatch(t, []string{"filler", "index.db", "index.sums", "log.0", "log.1", "reserve"}, names(t, dir))
		require.Len(t, uuids(t, x), 200)
	}
	filled := false
	x.AtCopy(func() {
		filled = true
		fill(t, dir)
	})
	check("it fills up")
	require.True(t, filled)
	filled = false
	check("it is full")
	require.False(t, filled, "nothing is begun")
	plan, err := x.Compact(t.Context(), true, nil)
	require.NoError(t, err)
	require.Greater(t, plan.Need, plan.Room)
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	x.AtCopy(func() {})
	done, err := x.Compact(t.Context(), false, nil)
	require.NoError(t, err)
	require.Less(t, done.After, done.Need)
	require.Len(t, uuids(t, x), 200)
	mustClose(t, x)
	x = mustOpen(t, dir)
	require.Len(t, uuids(t, x), 200)
	mustClose(t, x)
}
