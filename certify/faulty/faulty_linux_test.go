package faulty_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/certify/strict"
)

func init() { faulty.Main() }

// mount mounts a faulty filesystem with an empty file "file", a file "full" and
// an empty directory "dir", all of it durable.
func mount(t *testing.T) *faulty.Mount {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip.Proof(t, "needs root and /dev/fuse")
	}
	m, err := faulty.New(t.TempDir(), "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	require.NoError(t, os.WriteFile(m.Dir+"/file", nil, 0o600))
	require.NoError(t, os.WriteFile(m.Dir+"/full", []byte("bytes"), 0o600))
	require.NoError(t, os.Mkdir(m.Dir+"/dir", 0o700))
	require.NoError(t, m.SyncFS())
	return m
}

func set(t *testing.T, m *faulty.Mount, f faulty.Fault) {
	t.Helper()
	require.NoError(t, m.Set(f))
}

func requireTold(t *testing.T, m *faulty.Mount, want faulty.Told) {
	t.Helper()
	told, err := m.Told()
	require.NoError(t, err)
	require.Equal(t, want, told)
}

// appendTo is a file that is open, to append to.
func appendTo(t *testing.T, m *faulty.Mount, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(m.Dir, name), os.O_RDWR|os.O_APPEND, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // some close it themselves
	return f
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// survives is a file after a power cut that leaves only what is durable.
func survives(t *testing.T, m *faulty.Mount, name string) (data string, there bool) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, m.Cut(dir, strict.Choice{Keep: strict.Nothing}))
	text, err := os.ReadFile(filepath.Join(dir, name))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return string(text), err == nil
}

// Every kind of call can fail, with the error that was asked for, and is told by
// its name.
func TestEveryCallCanFail(t *testing.T) {
	type call struct {
		do      func(dir string) error
		changes bool
		again   bool // the kernel tries a second time by itself
	}
	calls := map[string]call{
		"lookup":   {do: func(dir string) error { return unless(fs.ErrNotExist, syncPath(dir+"/none")) }},
		"getattr":  {do: func(dir string) error { _, err := os.Stat(dir); return err }},
		"open":     {do: func(dir string) error { return syncPath(dir + "/file") }},
		"read":     {do: func(dir string) error { _, err := os.ReadFile(dir + "/full"); return err }, again: true},
		"flush":    {do: func(dir string) error { return syncPath(dir + "/file") }},
		"opendir":  {do: func(dir string) error { _, err := os.ReadDir(dir + "/dir"); return err }},
		"readdir":  {do: func(dir string) error { _, err := os.ReadDir(dir + "/dir"); return err }},
		"setattr":  {do: func(dir string) error { return os.Truncate(dir+"/file", 3) }, changes: true},
		"mkdir":    {do: func(dir string) error { return os.Mkdir(dir+"/new", 0o700) }, changes: true},
		"create":   {do: func(dir string) error { return create(dir + "/new") }, changes: true},
		"link":     {do: func(dir string) error { return os.Link(dir+"/file", dir+"/new") }, changes: true},
		"unlink":   {do: func(dir string) error { return syscall.Unlink(dir + "/file") }, changes: true},
		"rmdir":    {do: func(dir string) error { return syscall.Rmdir(dir + "/dir") }, changes: true},
		"rename":   {do: func(dir string) error { return os.Rename(dir+"/file", dir+"/dir/new") }, changes: true},
		"write":    {do: func(dir string) error { return os.WriteFile(dir+"/file", []byte("x"), 0) }, changes: true},
		"fsync":    {do: func(dir string) error { return syncPath(dir + "/file") }, changes: true},
		"fsyncdir": {do: func(dir string) error { return syncPath(dir + "/dir") }, changes: true},
	}
	for name, c := range calls {
		t.Run(name, func(t *testing.T) {
			for _, changes := range []bool{false, true} {
				fault := faulty.Fault{Errno: syscall.EDQUOT, Changes: changes, Sticky: c.again}
				require.Equal(t, c.changes || !changes, failAt(t, name, fault, c.do), "counts only changes: %t", changes)
			}
		})
	}
}

func create(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func unless(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// failAt does something to a new filesystem of which the first, second, … call
// fails, until it is one of that name. It is false where there is none.
func failAt(t *testing.T, name string, fault faulty.Fault, do func(dir string) error) bool {
	t.Helper()
	for fault.At = 1; ; fault.At++ {
		m := mount(t)
		set(t, m, fault)
		err := do(m.Dir)
		told, e := m.Told()
		require.NoError(t, e)
		switch told.Hit {
		case "":
			require.NoError(t, err)
			return false
		case name:
			require.ErrorIs(t, err, fault.Errno)
			require.NoError(t, m.Close())
			return true
		}
		require.NoError(t, m.Close())
	}
}

// At counts from when the fault was set, and one call fails; Changes counts
// only those that change something.
func TestOneCallFails(t *testing.T) {
	m := mount(t)
	set(t, m, faulty.Fault{At: 2, Errno: syscall.ENOSPC, Changes: true})
	requireTold(t, m, faulty.Told{})
	require.NoError(t, os.Mkdir(m.Dir+"/1", 0o700))
	_, err := os.ReadDir(m.Dir)
	require.NoError(t, err)
	requireTold(t, m, faulty.Told{Calls: 1})
	require.ErrorIs(t, os.Mkdir(m.Dir+"/2", 0o700), syscall.ENOSPC)
	requireTold(t, m, faulty.Told{Calls: 2, Hit: "mkdir"})
	require.NoDirExists(t, m.Dir+"/2", "what fails changes nothing")
	require.NoError(t, os.Remove(m.Dir+"/1"))
	require.NoError(t, os.Mkdir(m.Dir+"/2", 0o700))
	requireTold(t, m, faulty.Told{Calls: 4, Hit: "mkdir"})

	set(t, m, faulty.Fault{})
	requireTold(t, m, faulty.Told{})
}

// Sticky makes later calls fail too: all, or with Changes only those.
func TestLaterCallsFailToo(t *testing.T) {
	m := mount(t)
	set(t, m, faulty.Fault{At: 2, Errno: syscall.EROFS, Changes: true, Sticky: true})
	require.NoError(t, os.Mkdir(m.Dir+"/1", 0o700))
	require.ErrorIs(t, os.Mkdir(m.Dir+"/2", 0o700), syscall.EROFS)
	require.ErrorIs(t, syscall.Rmdir(m.Dir+"/1"), syscall.EROFS)
	_, err := os.ReadDir(m.Dir)
	require.NoError(t, err, "reading changes nothing")
	requireTold(t, m, faulty.Told{Calls: 3, Hit: "mkdir"})

	set(t, m, faulty.Fault{At: 1, Errno: syscall.EIO, Sticky: true})
	_, err = os.Lstat(m.Dir + "/1")
	require.ErrorIs(t, err, syscall.EIO)
	_, err = os.ReadDir(m.Dir)
	require.ErrorIs(t, err, syscall.EIO)
	set(t, m, faulty.Fault{})
	require.NoError(t, os.Remove(m.Dir+"/1"), "an empty fault heals")
}

// A short write takes half of its bytes; the one for the rest fails, and with
// Sticky all that follow. Nothing else is counted.
func TestShortWrite(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		m := mount(t)
		f := appendTo(t, m, "file")
		set(t, m, faulty.Fault{At: 2, Errno: syscall.ENOSPC, Short: true, Sticky: sticky})
		require.NoError(t, os.Mkdir(m.Dir+"/1", 0o700))
		n, err := f.WriteString("whole ")
		require.NoError(t, err)
		require.Equal(t, 6, n)
		requireTold(t, m, faulty.Told{Calls: 1})
		n, err = f.WriteString("halfrest") // the system library tries the rest by itself
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Equal(t, 4, n)
		requireTold(t, m, faulty.Told{Calls: 3, Hit: "short write"})
		data, err := os.ReadFile(m.Dir + "/file")
		require.NoError(t, err)
		require.Equal(t, "whole half", string(data))
		_, err = f.WriteString("more")
		if sticky {
			require.ErrorIs(t, err, syscall.ENOSPC)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, f.Sync(), "no write")
	}
}

// The bytes of a sync that failed can be read, and are not durable, nor after a
// sync that succeeds; with Durable they were although it failed. Written again
// they are what any bytes are.
func TestFailedSyncOfBytes(t *testing.T) {
	syncs := map[string]func(m *faulty.Mount, f *os.File) error{
		"fsync": func(_ *faulty.Mount, f *os.File) error { return f.Sync() }, "syncfs": func(m *faulty.Mount, _ *os.File) error { return m.SyncFS() },
	}
	for name, sync := range syncs {
		for _, durable := range []bool{false, true} {
			m := mount(t)
			f := appendTo(t, m, "file")
			_, err := f.WriteString("bytes")
			require.NoError(t, err)
			set(t, m, faulty.Fault{At: 1, Errno: syscall.EIO, Changes: true, Durable: durable})
			require.ErrorIs(t, sync(m, f), syscall.EIO)
			requireTold(t, m, faulty.Told{Calls: 1, Hit: name})
			data, err := os.ReadFile(m.Dir + "/file")
			require.NoError(t, err)
			require.Equal(t, "bytes", string(data))
			left, _ := survives(t, m, "file")
			if durable {
				require.Equal(t, "bytes", left)
				continue
			}
			require.Empty(t, left)
			require.NoError(t, sync(m, f))
			left, _ = survives(t, m, "file")
			require.Equal(t, "\x00\x00\x00\x00\x00", left, "the size is durable, the bytes are not")
			again, err := os.OpenFile(m.Dir+"/file", os.O_RDWR, 0)
			require.NoError(t, err)
			_, err = again.WriteAt([]byte("bytes"), 0)
			require.NoError(t, err)
			require.NoError(t, sync(m, again))
			require.NoError(t, again.Close())
			left, _ = survives(t, m, "file")
			require.Equal(t, "bytes", left)
		}
	}
}

// The names of a sync that failed are durable with the next one, or with Durable
// although it failed.
func TestFailedSyncOfNames(t *testing.T) {
	for _, durable := range []bool{false, true} {
		m := mount(t)
		require.NoError(t, create(m.Dir+"/dir/new"))
		set(t, m, faulty.Fault{At: 1, Errno: syscall.EIO, Changes: true, Durable: durable})
		require.ErrorIs(t, syncPath(m.Dir+"/dir"), syscall.EIO)
		requireTold(t, m, faulty.Told{Calls: 1, Hit: "fsyncdir"})
		_, there := survives(t, m, "dir/new")
		require.Equal(t, durable, there)
		require.NoError(t, syncPath(m.Dir+"/dir"))
		_, there = survives(t, m, "dir/new")
		require.True(t, there)
	}
}
