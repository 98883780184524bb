package adopt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

// killedExit is the exit code of a process that ended itself at a point.
const killedExit = 42

// TestMain is also a process that moves a source into a store, and ends in the
// middle of that as one that is killed does: at once, at the nth point that it
// reaches.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "victim" {
		victim(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	os.Exit(m.Run())
}

func victim(source, dir, point string) {
	at, err := strconv.ParseInt(point, 10, 64)
	must(err)
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	must(err)
	var reached atomic.Int64
	o := adopt.WithPoints(adopt.Options{Dir: source, InPlace: true}, func(string) {
		if reached.Add(1) == at {
			os.Exit(killedExit)
		}
	})
	for _, err := range adopt.Adopt(context.Background(), f, o) {
		must(err)
	}
	must(f.Close())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A move that is killed, over and over, at one point after another, loses nothing
// and takes nothing twice.
func TestKilledMoves(t *testing.T) {
	const files = 70 // two batches
	for start := int64(1); start <= 8; start++ {
		k := newKit(t, true)
		old := map[string]string{} // reference to digest
		for i := range files {
			data := png(fmt.Sprint(i))
			old[k.dedupPut(fmt.Sprint("s", i%3), ".png", data, kitMeta(fmt.Sprint("s", i%3)))] = hexOf(data)
		}
		dir := t.TempDir()
		point, kills := start, 0
		for ; ; point = point*2 + 1 {
			cmd := exec.Command(os.Args[0], "victim", k.dir, dir, fmt.Sprint(point))
			out, err := cmd.CombinedOutput()
			requireNothingLost(t, k.dir, dir, old)
			if err == nil {
				break
			}
			failed := new(exec.ExitError)
			require.True(t, errors.As(err, &failed) && failed.ExitCode() == killedExit, "%v: %s", err, out)
			kills++
		}
		require.Positive(t, kills)
		f := mustOpen(t, dir)
		require.Len(t, entries(t, f), files, "each once")
		for ref, digest := range old {
			now, err := f.Resolve(context.Background(), ref)
			require.NoError(t, err)
			require.Equal(t, digest, hexOf(mustRead(t, f, now.ID)))
		}
		left, err := os.ReadDir(k.dir)
		require.NoError(t, err)
		require.Len(t, left, 1, "the index alone is left: %v", left)
	}
}

// requireNothingLost requires that every content is in the source or in the store.
func requireNothingLost(t *testing.T, source, dir string, old map[string]string) {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	require.NoError(t, err)
	there := map[string]bool{}
	for _, e := range entries(t, f) {
		require.Equal(t, e.Digest.String(), hexOf(mustRead(t, f, e.Reference.ID)))
		there[e.Digest.String()] = true
	}
	require.NoError(t, f.Close())
	for ref, digest := range old {
		data, err := os.ReadFile(ref)
		require.True(t, err == nil && hexOf(data) == digest || there[digest], "%s is lost", ref)
	}
}

func TestInPlace(t *testing.T) {
	k := newKit(t, true)
	good := k.dedupPut("s1", ".png", png("good"), kitMeta("s1"))
	wrong := k.dedupPut("s2", ".png", png("wrong"), kitMeta("s2"))
	require.NoError(t, os.WriteFile(wrong, png("WRONG"), 0o600))
	torn := k.dedupPut("s3", ".png", png("torn"), kitMeta("s3"))
	require.NoError(t, os.WriteFile(torn+".meta", []byte("{"), 0o600))
	f := mustOpen(t, t.TempDir())
	for range 2 { // what was left is left again, with what is known of it
		adoptAll(t, f, adopt.Options{Dir: k.dir, InPlace: true})
		require.NoFileExists(t, good)
		require.NoFileExists(t, good+".meta")
		require.NoDirExists(t, filepath.Dir(good))
		require.FileExists(t, wrong)
		require.FileExists(t, wrong+".meta")
		require.NoFileExists(t, torn)
		require.FileExists(t, torn+".meta", "what could not be read was not taken")
		require.Len(t, entries(t, f), 2)
	}
}

// A move after a copy removes what is still as it was taken.
func TestInPlaceAfterCopy(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"same", "other", "deleted"} {
		write(t, dir, name, []byte(name))
	}
	f := mustOpen(t, t.TempDir())
	items, _ := adoptAll(t, f, adopt.Options{Dir: dir})
	write(t, dir, "other", []byte("OTHER"))
	require.NoError(t, f.Delete(context.Background(), &storage.StorageReference{ID: items["deleted"].Reference}))
	items, r := adoptAll(t, f, adopt.Options{Dir: dir, InPlace: true})
	require.True(t, items["same"].Removed)
	require.Equal(t, adopt.OddChanged, items["other"].Odd)
	require.Equal(t, 1, r.Removed)
	require.NoFileExists(t, filepath.Join(dir, "same"))
	require.FileExists(t, filepath.Join(dir, "other"))
	require.FileExists(t, filepath.Join(dir, "deleted"), "the last copy of something is not removed")
}

// A file that changes between its reading and its removal stays.
func TestInPlaceOfAFileThatChanges(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written": func(path string) error { return os.WriteFile(path, []byte("WORDS"), 0o600) },
		"replaced": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("words"), 0o600))
		},
		"gone": os.Remove,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.txt")
		write(t, dir, "a.txt", []byte("words"))
		require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(-time.Hour)))
		f := mustOpen(t, t.TempDir())
		o := adopt.WithPoints(adopt.Options{Dir: dir, InPlace: true}, func(point string) {
			if point == "recorded" {
				require.NoError(t, change(path))
			}
		})
		items, _ := adoptAll(t, f, o)
		require.Equal(t, adopt.Taken, items["a.txt"].State, name)
		require.Equal(t, adopt.OddKept, items["a.txt"].Odd, name)
		require.False(t, items["a.txt"].Removed)
	}
}

// A copy that is damaged on its way is not taken for one.
func TestInPlaceReadsBack(t *testing.T) {
	dir, base := t.TempDir(), t.TempDir()
	write(t, dir, "a.txt", []byte("words of some length"))
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: base, EnableDeduplication: true})
	require.NoError(t, err)
	defer f.Close()
	o := adopt.WithPoints(adopt.Options{Dir: dir, InPlace: true}, func(point string) {
		if point != "recorded" {
			return
		}
		stored := filepath.Join(base, filepath.FromSlash(entries(t, f)[0].Path))
		data, err := os.ReadFile(stored)
		require.NoError(t, err)
		data[3] ^= 1
		require.NoError(t, os.WriteFile(stored, data, 0o600))
	})
	var last error
	for _, err := range adopt.Adopt(context.Background(), f, o) {
		last = err
	}
	require.ErrorIs(t, last, storage.ErrCorrupted)
	require.FileExists(t, filepath.Join(dir, "a.txt"))
}
