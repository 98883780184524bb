package blobs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// wholeSyncFrom is the size of group from which on one syncfs takes the place of
// a sync per file and per staging directory. A lone store does not flush what
// other programs wrote.
const wholeSyncFrom = 2

// filesystem is the one that the base directory is on.
type filesystem struct {
	*os.File
	sync func() error // in place of syncfs, or nil
}

// openFilesystem returns nil where syncfs does not tell of write errors, which
// it does since Linux 5.8.
func openFilesystem(root *os.Root, sync func() error) (*filesystem, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(strings.ReplaceAll(release, "-", " "), "%d.%d", &major, &minor); err != nil {
		return nil, nil
	}
	if major < 5 || major == 5 && minor < 8 {
		return nil, nil
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return &filesystem{dir, sync}, nil
}

// Sync makes everything durable that was written to the filesystem.
func (f *filesystem) Sync() error {
	if f.sync != nil {
		return f.sync()
	}
	err := unix.Syncfs(int(f.Fd()))
	if err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	return nil
}

// datasync makes a file's bytes durable, and of its metadata what reading them
// needs.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
