package strict_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/certify/strict"
)

func init() { strict.Main() }

// mount mounts an empty strict filesystem. cut closes it and writes what
// survives a cut after some of its events to a directory; after -1 it is all of
// them.
func mount(t *testing.T) (m *strict.Mount, cut func(after int, c strict.Choice) string) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip.Proof(t, "needs root and /dev/fuse")
	}
	record := filepath.Join(t.TempDir(), "events")
	m, err := strict.New(t.TempDir(), "", record)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m, func(after int, c strict.Choice) string {
		require.NoError(t, m.Close())
		events, err := strict.ReadEvents(record)
		require.NoError(t, err)
		if after < 0 {
			after = len(events)
		}
		model := strict.NewModel()
		for i := range events[:after] {
			model.Apply(&events[i])
		}
		dir := t.TempDir()
		require.NoError(t, model.Survive(c).Write(dir))
		return dir
	}
}

// tree is every file's content by its path, directories with a slash.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || e.IsDir() {
			all[rel+"/"] = ""
			return err
		}
		data, err := os.ReadFile(name)
		all[rel] = string(data)
		return err
	}))
	return all
}

func syncPath(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
}

func write(t *testing.T, name, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(data), 0o600))
}

// Each case does something to a filesystem that has the durable files a/old
// ("old") and b/.
func TestOnlyWhatWasSyncedIsDurable(t *testing.T) {
	before := map[string]string{"a/": "", "a/old": "old", "b/": ""}
	with := func(more map[string]string, less ...string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{before, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		for _, name := range less {
			delete(all, name)
		}
		return all
	}
	cases := []struct {
		name string
		do   func(t *testing.T, dir string)
		want map[string]string
	}{
		{"nothing", func(*testing.T, string) {}, before},
		{"a file without syncs", func(t *testing.T, dir string) { write(t, dir+"/a/new", "new") }, before},
		{"a file, synced, without its name", func(t *testing.T, dir string) {
			write(t, dir+"/a/new", "new")
			syncPath(t, dir+"/a/new")
		}, before},
		{"a name, synced, without its bytes", func(t *testing.T, dir string) {
			write(t, dir+"/a/new", "new")
			syncPath(t, dir+"/a")
		}, with(map[string]string{"a/new": ""})},
		{"both", func(t *testing.T, dir string) {
			write(t, dir+"/a/new", "new")
			syncPath(t, dir+"/a/new")
			syncPath(t, dir+"/a")
		}, with(map[string]string{"a/new": "new"})},
		{"bytes after the sync", func(t *testing.T, dir string) {
			f, err := os.OpenFile(dir+"/a/old", os.O_RDWR|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = f.WriteString(" and synced")
			require.NoError(t, err)
			require.NoError(t, unix.Fdatasync(int(f.Fd())))
			_, err = f.WriteString(" and not")
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}, with(map[string]string{"a/old": "old and synced"})},
		{"a removal", func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/a/old")) }, before},
		{"a removal, synced", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(dir+"/a/old"))
			syncPath(t, dir+"/a")
		}, with(nil, "a/old")},
		{"a rename of which the new directory is synced", func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir+"/a/old", dir+"/b/new"))
			syncPath(t, dir+"/b")
		}, with(map[string]string{"b/new": "old"})},
		{"a rename of which the old directory is synced", func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir+"/a/old", dir+"/b/new"))
			syncPath(t, dir+"/a")
		}, with(nil, "a/old")},
		{"a rename within a directory, synced", func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir+"/a/old", dir+"/a/new"))
			syncPath(t, dir+"/a")
		}, with(map[string]string{"a/new": "old"}, "a/old")},
		{"a new directory whose parent is not synced", func(t *testing.T, dir string) {
			require.NoError(t, os.MkdirAll(dir+"/c/d", 0o700))
			write(t, dir+"/c/d/new", "new")
			for _, name := range []string{"/c/d/new", "/c/d", "/c"} {
				syncPath(t, dir+name)
			}
		}, before},
		{"a truncation", func(t *testing.T, dir string) { require.NoError(t, os.Truncate(dir+"/a/old", 1)) }, before},
		{"a truncation, synced", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(dir+"/a/old", 1))
			require.NoError(t, os.Truncate(dir+"/a/old", 3))
			syncPath(t, dir+"/a/old")
		}, with(map[string]string{"a/old": "o\x00\x00"})},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, cut := mount(t)
			require.NoError(t, os.Mkdir(m.Dir+"/a", 0o700))
			require.NoError(t, os.Mkdir(m.Dir+"/b", 0o700))
			write(t, m.Dir+"/a/old", "old")
			require.NoError(t, m.SyncFS())
			c.do(t, m.Dir)
			require.Equal(t, c.want, tree(t, cut(-1, strict.Choice{Keep: strict.Nothing})))
		})
	}
}

// A sync of the filesystem makes everything durable, and a process that was only
// killed has lost nothing; hard links stay links.
func TestEverything(t *testing.T) {
	m, cut := mount(t)
	require.NoError(t, os.MkdirAll(m.Dir+"/a/b", 0o700))
	write(t, m.Dir+"/a/one", "one")
	require.NoError(t, os.Link(m.Dir+"/a/one", m.Dir+"/a/b/two"))
	large := string(bytes.Repeat([]byte("a large file "), 100_000))
	write(t, m.Dir+"/large", large)
	want := tree(t, m.Dir)
	clock, err := m.Clock()
	require.NoError(t, err)
	require.NoError(t, m.SyncFS())
	write(t, m.Dir+"/a/three", "three")
	more := tree(t, m.Dir)

	require.Equal(t, map[string]string{}, tree(t, cut(clock, strict.Choice{Keep: strict.Nothing})))
	require.Equal(t, want, tree(t, cut(clock, strict.Choice{Keep: strict.Everything})))
	require.Equal(t, want, tree(t, cut(clock+1, strict.Choice{Keep: strict.Nothing})))
	require.Equal(t, want, tree(t, cut(-1, strict.Choice{Keep: strict.Nothing})))
	dir := cut(-1, strict.Choice{Keep: strict.Everything})
	require.Equal(t, more, tree(t, dir))
	one, err := os.Stat(dir + "/a/one")
	require.NoError(t, err)
	two, err := os.Stat(dir + "/a/b/two")
	require.NoError(t, err)
	require.True(t, os.SameFile(one, two))

	again, err := strict.Read(dir)
	require.NoError(t, err)
	copied := t.TempDir()
	require.NoError(t, again.Survive(strict.Choice{Keep: strict.Nothing}).Write(copied))
	require.Equal(t, more, tree(t, copied))
}

// Of what is not durable a seed decides: over many of them everything that the
// rules allow turns up, and nothing else.
func TestSomeSurvives(t *testing.T) {
	m, cut := mount(t)
	require.NoError(t, os.Mkdir(m.Dir+"/a", 0o700))
	require.NoError(t, os.Mkdir(m.Dir+"/b", 0o700))
	write(t, m.Dir+"/a/file", "0")
	require.NoError(t, m.SyncFS())
	require.NoError(t, os.Rename(m.Dir+"/a/file", m.Dir+"/b/file"))
	write(t, m.Dir+"/b/file", "1")
	write(t, m.Dir+"/b/second", "")
	require.NoError(t, os.Remove(m.Dir+"/b/second"))
	seen := map[string]bool{}
	for seed := range uint64(200) {
		dir := cut(-1, strict.Choice{Keep: strict.Some, Seed: seed})
		got := tree(t, dir)
		require.Equal(t, got, tree(t, cut(-1, strict.Choice{Keep: strict.Some, Seed: seed})), "the same seed leaves the same")
		for name, data := range got {
			seen[fmt.Sprintf("%s=%q", name, data)] = true
		}
		_, a := got["a/file"]
		_, b := got["b/file"]
		seen[fmt.Sprint(a, b)] = true
	}
	require.Equal(t, map[string]bool{
		"a/=\"\"": true, "b/=\"\"": true, "b/second=\"\"": true,
		"a/file=\"0\"": true, "a/file=\"1\"": true, "a/file=\"\"": true, "a/file=\"\\x00\"": true,
		"b/file=\"0\"": true, "b/file=\"1\"": true, "b/file=\"\"": true, "b/file=\"\\x00\"": true,
		"true true": true, "true false": true, "false true": true, "false false": true,
	}, seen)
}

// A memory map sees what is written to its file.
func TestMapIsCoherent(t *testing.T) {
	m, _ := mount(t)
	f, err := os.OpenFile(m.Dir+"/file", os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<20))
	data, err := syscall.Mmap(int(f.Fd()), 0, 1<<20, syscall.PROT_READ, syscall.MAP_SHARED)
	require.NoError(t, err)
	require.Zero(t, data[5000])
	_, err = f.WriteAt([]byte("written"), 5000)
	require.NoError(t, err)
	again, err := os.Open(m.Dir + "/file")
	require.NoError(t, err)
	require.Equal(t, "written", string(data[5000:5007]))
	require.NoError(t, again.Close())
	require.NoError(t, syscall.Munmap(data))
	require.NoError(t, f.Close())
}
