package blobs

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// errEscapes is what RESOLVE_BENEATH means by EXDEV.
var errEscapes = errors.New("path escapes the store")

// fastBase is the base directory as openat2 takes it.
type fastBase struct{ dir *os.File }

// openFast returns nil where there is no openat2: before Linux 5.6, or where a
// sandbox forbids it.
func openFast(root *os.Root) (*fastBase, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	f := &fastBase{dir}
	fd, err := f.open(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, dir.Close()
	}
	return f, unix.Close(fd)
}

func (f *fastBase) Close() error { return f.dir.Close() }

// open returns a file descriptor. A symbolic link as the last element is
// followed, as far as it stays beneath the base directory.
func (f *fastBase) open(name string, flag int, perm fs.FileMode) (int, error) {
	how := unix.OpenHow{
		Flags: uint64(flag) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flag&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(int(f.dir.Fd()), name, &how)
		if err == nil {
			return fd, nil
		}
		if err == unix.EXDEV {
			return -1, &os.PathError{Op: "openat2", Path: name, Err: errEscapes}
		}
		// EAGAIN: something was renamed while the kernel walked the name.
		if err != unix.EINTR && err != unix.EAGAIN {
			return -1, &os.PathError{Op: "openat2", Path: name, Err: err}
		}
	}
}

func (f *fastBase) openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	fd, err := f.open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// appendTo does without an os.File, whose making asks the kernel twice more and
// leaves a finalizer.
func (f *fastBase) appendTo(name string, flag int, perm fs.FileMode, data []byte) (err error) {
	fd, err := f.open(name, flag, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil && err != unix.EINTR {
			return &os.PathError{Op: "write", Path: name, Err: err}
		}
		data = data[max(n, 0):]
	}
	return nil
}

func (f *fastBase) lstat(name string) (size int64, mode fs.FileMode, err error) {
	fd, err := f.open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return st.Size, 0, nil
	case unix.S_IFDIR:
		return st.Size, fs.ModeDir, nil
	case unix.S_IFLNK:
		return st.Size, fs.ModeSymlink, nil
	}
	return st.Size, fs.ModeIrregular, nil
}

func (f *fastBase) remove(name string) (err error) {
	dir, err := f.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	if err := unix.Unlinkat(dir, path.Base(name), 0); err != nil {
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	return nil
}
