package blobs

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fastFolder is the descriptor of a directory.
type fastFolder struct{ fd int }

func (f *fastBase) openFolder(name string) (*fastFolder, error) {
	fd, err := f.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &fastFolder{fd}, nil
}

func (f *fastFolder) Close() { _ = unix.Close(f.fd) }

func (f *fastFolder) create(base string, perm fs.FileMode) (*os.File, error) {
	for {
		fd, err := unix.Openat(f.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
		if err == nil {
			return os.NewFile(uintptr(fd), base), nil
		}
		if err != unix.EINTR {
			return nil, &os.PathError{Op: "openat", Path: base, Err: err}
		}
	}
}

func (f *fastFolder) link(base string, to *fastFolder, name string) error {
	if err := unix.Linkat(f.fd, base, to.fd, name, 0); err != nil {
		return &os.LinkError{Op: "linkat", Old: base, New: name, Err: err}
	}
	return nil
}

func (f *fastFolder) remove(base string) error {
	if err := unix.Unlinkat(f.fd, base, 0); err != nil {
		return &os.PathError{Op: "unlinkat", Path: base, Err: err}
	}
	return nil
}
