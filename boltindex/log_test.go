package boltindex_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// copyFiles copies the files of an index that is open, as a killed process
// leaves them.
func copyFiles(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range names(t, from) {
		data, err := os.ReadFile(filepath.Join(from, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), data, 0o600))
	}
	return to
}

// unflushed is the files of an index with count references that bbolt does not
// have, each of a record of its own, and the UUIDs.
func unflushed(t testing.TB, count byte) (dir string, live []storage.UUID) {
	t.Helper()
	from := t.TempDir()
	x := mustOpen(t, from)
	for i := range count {
		u := storage.UUID{0: i + 1, 15: i}
		mustAdd(t, x, u, storage.MediaMetadata{SessionID: "s"})
		live = append(live, u)
	}
	dir = copyFiles(t, from)
	applied, err := x.Applied()
	require.NoError(t, err)
	require.Zero(t, applied, "bbolt has nothing yet")
	mustClose(t, x)
	return dir, live
}

func TestCommittedRowsAreInTheLogUntilBoltHasThem(t *testing.T) {
	dir, live := unflushed(t, 10)
	for range 3 { // openings that are killed again
		x := mustOpen(t, dir)
		require.Equal(t, live, uuids(t, x))
		dir = copyFiles(t, dir)
		mustClose(t, x)
	}
	x := mustOpen(t, dir)
	u := storage.UUID{0: 200, 15: 200}
	mustAdd(t, x, u, storage.MediaMetadata{SessionID: "s"})
	live = append(live, u)
	dir = copyFiles(t, dir)
	mustClose(t, x)
	x = mustOpen(t, dir)
	require.Equal(t, live, uuids(t, x))
	require.NoError(t, x.Flush())
	applied, err := x.Applied()
	require.NoError(t, err)
	require.EqualValues(t, 11, applied)
	require.Equal(t, live, uuids(t, x))
	mustClose(t, x)
}

// A record that a crash cut short is none; those before it stand.
func TestLogCutShort(t *testing.T) {
	base, live := unflushed(t, 5)
	last := int64(4 * boltindex.LogBlock)
	for what, harm := range map[string]func(log []byte) []byte{
		"not written":         func(log []byte) []byte { clear(log[last : last+boltindex.LogBlock]); return log },
		"its end not written": func(log []byte) []byte { clear(log[last+100 : last+boltindex.LogBlock]); return log },
		"its beginning not":   func(log []byte) []byte { clear(log[last : last+50]); return log },
		"a bit":               func(log []byte) []byte { log[last+60] ^= 1; return log },
		"file ends in it":     func(log []byte) []byte { return log[:last+70] },
		"file ends before it": func(log []byte) []byte { return log[:last] },
	} {
		t.Run(what, func(t *testing.T) {
			dir := copyFiles(t, base)
			name := filepath.Join(dir, "log.0")
			log, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, harm(log), 0o600))
			x := mustOpen(t, dir)
			require.Equal(t, live[:4], uuids(t, x))
			mustAdd(t, x, live[4], storage.MediaMetadata{SessionID: "s"})
			dir = copyFiles(t, dir)
			mustClose(t, x)
			x = mustOpen(t, dir)
			require.Equal(t, live, uuids(t, x))
			mustClose(t, x)
		})
	}
}

// What was durable and is no more is said, never left out.
func TestDamagedLogIsRefused(t *testing.T) {
	base, live := unflushed(t, 5)
	flipAt := func(at int) func(testing.TB, string) {
		return func(t testing.TB, dir string) {
			name := filepath.Join(dir, "log.0")
			log, err := os.ReadFile(name)
			require.NoError(t, err)
			log[at] ^= 1
			require.NoError(t, os.WriteFile(name, log, 0o600))
		}
	}
	for what, c := range map[string]struct {
		harm func(testing.TB, string)
		says string
	}{
		"first record, its magic":  {flipAt(0), "record 1 at byte 0"},
		"first record, its number": {flipAt(25), "record 1 at byte 0"},
		"first record, a row":      {flipAt(60), "record 1 at byte 0"},
		"third record, its length": {flipAt(2*boltindex.LogBlock + 33), "record 3 at byte 8192"},
		"third record, its sum":    {flipAt(2*boltindex.LogBlock + 37), "record 3 at byte 8192"},
		"the log of another store": {func(t testing.TB, dir string) {
			other, _ := unflushed(t, 3)
			require.NoError(t, os.Rename(filepath.Join(other, "log.0"), filepath.Join(dir, "log.0")))
		}, "belongs to store"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := copyFiles(t, base)
			c.harm(t, dir)
			harmed, err := os.ReadFile(filepath.Join(dir, "log.0"))
			require.NoError(t, err)
			for range 2 {
				_, err := open(t.Context(), t, dir, boltindex.Config{})
				require.ErrorIs(t, err, storage.ErrCorrupted)
				require.ErrorContains(t, err, "log.0")
				require.ErrorContains(t, err, c.says)
			}
			after, err := os.ReadFile(filepath.Join(dir, "log.0"))
			require.NoError(t, err)
			require.Equal(t, harmed, after, "a refused log is left as it is")
		})
	}

	t.Run("an index older than the log", func(t *testing.T) {
		dir := copyFiles(t, base)
		x := mustOpen(t, dir)
		require.NoError(t, x.Flush())
		mustAdd(t, x, storage.UUID{0: 99, 15: 99}, storage.MediaMetadata{})
		killed := copyFiles(t, dir)
		mustClose(t, x)
		require.NoError(t, os.Rename(filepath.Join(base, "index.db"), filepath.Join(killed, "index.db")))
		x = mustOpen(t, killed) // the older segment is still there, and fills the gap
		require.Equal(t, append(live, storage.UUID{0: 99, 15: 99}), uuids(t, x))
		mustClose(t, x)
	})
}

// A gap between what the index has and what the log begins with is refused.
func TestLogThatBeginsTooLate(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	old, err := os.ReadFile(path(dir))
	require.NoError(t, err)
	for i := range byte(3) {
		mustAdd(t, x, storage.UUID{0: i + 1, 15: i}, storage.MediaMetadata{})
		require.NoError(t, x.Flush())
	}
	mustAdd(t, x, storage.UUID{0: 9, 15: 9}, storage.MediaMetadata{})
	killed := copyFiles(t, dir)
	mustClose(t, x)
	require.NoError(t, os.WriteFile(path(killed), old, 0o600))
	_, err = open(t.Context(), t, killed, boltindex.Config{})
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.ErrorContains(t, err, "record 1 is missing")
}

// Segments take turns under load, are killed at any moment, and nothing that
// was acknowledged is lost.
func TestSegmentsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	x := mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
	label := string(bytes.Repeat([]byte("v"), storage.MaxLabelValueLength))
	var mu sync.Mutex // guards live
	live := map[storage.UUID]bool{}
	var all sync.WaitGroup
	const writers, each = 16, 600
	for w := range writers {
		all.Go(func() {
			for i := range each {
				u := storage.UUID{0: byte(w + 1), 1: byte(i >> 8), 2: byte(i), 3: 1, 15: byte(i % 7)}
				m := storage.MediaMetadata{SessionID: "s", Labels: map[string]string{"a": label, "b": label}}
				if _, err := x.Add(context.Background(), addition(u, m)); err != nil {
					t.Errorf("add: %v", err)
					return
				}
				if i%3 == 0 {
					if _, err := x.Remove(context.Background(), idOf(u)); err != nil {
						t.Errorf("remove: %v", err)
					}
					continue
				}
				mu.Lock()
				live[u] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	applied, err := x.Applied()
	require.NoError(t, err)
	require.NotZero(t, applied, "more was written than a segment holds")
	killed := copyFiles(t, dir)
	for _, x := range []*boltindex.Index{x, mustOpen(t, killed)} {
		found := uuids(t, x)
		require.Len(t, found, len(live))
		for _, u := range found {
			require.True(t, live[u], "%s", u)
		}
		mustClose(t, x)
	}
}

// Readers see one moment, whatever the flush moves meanwhile.
func TestReadersWhileRowsMove(t *testing.T) {
	ctx := context.Background()
	x := mustOpenConfig(t, t.TempDir(), boltindex.Config{NoSync: true})
	stop := make(chan struct{})
	var all sync.WaitGroup
	background := func(fn func(i int)) {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					fn(i)
				}
			}
		})
	}
	background(func(int) {
		if err := x.Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
	})
	background(func(int) {
		// Every reference that a list has is there, and so is its blob.
		if _, _, _, err := x.Refs(ctx, storage.RefFilter{SessionID: "s"}, storage.UUID{}, 1000); err != nil {
			t.Errorf("refs: %v", err)
		}
	})
	background(func(i int) {
		_, _, err := x.Ref(ctx, idOf(storage.UUID{0: byte(i%40 + 1), 15: byte(i % 5)}))
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("ref: %v", err)
		}
	})
	for round := range 100 {
		for i := range byte(40) {
			u := storage.UUID{0: i + 1, 15: i % 5}
			mustAdd(t, x, u, storage.MediaMetadata{SessionID: "s"})
		}
		require.Len(t, uuids(t, x), 40, "round %d", round)
		for i := range byte(40) {
			removal, err := x.Remove(ctx, idOf(storage.UUID{0: i + 1, 15: i % 5}))
			require.NoError(t, err)
			require.True(t, removal.Found)
		}
		require.Empty(t, uuids(t, x), "round %d", round)
	}
	close(stop)
	all.Wait()
	mustClose(t, x)
}

// When a record can be neither written nor taken back, the change is in doubt:
// no further one is accepted, reads go on, and the next opening decides.
func TestLogThatCannotBeWritten(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	x := mustOpen(t, dir)
	u := storage.UUID{0: 1, 15: 1}
	mustAdd(t, x, u, storage.MediaMetadata{})
	var readOnly [2]*os.File
	for i, name := range []string{"log.0", "log.1"} {
		f, err := os.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		readOnly[i] = f
	}
	require.NoError(t, x.LogTo(readOnly))
	_, err := x.Add(ctx, addition(storage.UUID{0: 2, 15: 2}, storage.MediaMetadata{}))
	require.ErrorIs(t, err, storage.ErrInDoubt)
	require.ErrorContains(t, err, "log.0")
	_, err = x.Remove(ctx, idOf(u))
	require.ErrorIs(t, err, storage.ErrIO)
	require.ErrorContains(t, err, "reopen")
	require.Equal(t, []storage.UUID{u}, uuids(t, x))
	require.NoError(t, x.Close())
	x = mustOpen(t, dir)
	require.Equal(t, []storage.UUID{u}, uuids(t, x))
	mustClose(t, x)
}
