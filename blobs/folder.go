package blobs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// folder is a directory whose entries are reached without a walk of their path.
// Where there is openat2(2) it is kept open; it was resolved beneath the base
// directory, and its entries are named by one element, which is never followed.
// Elsewhere it is a path. A blob enters staging three times and its final
// directory once; each walk by openat2 is two system calls more.
type folder struct {
	in   beneath
	name string
	fast *fastFolder // nil where the path has to do
}

// openFolder opens a directory, and makes it where it is missing.
func (b beneath) openFolder(name string, mode fs.FileMode) (*folder, error) {
	if b.fast == nil {
		return &folder{in: b, name: name}, b.MkdirAll(name, mode)
	}
	fast, err := b.fast.openFolder(name)
	if err != nil {
		if err := b.MkdirAll(name, mode); err != nil {
			return nil, err
		}
		if fast, err = b.fast.openFolder(name); err != nil {
			return nil, err
		}
	}
	return &folder{b, name, fast}, nil
}

// Close lets go of the directory. Nothing was written through its descriptor, so
// that there is no error to be told.
func (f *folder) Close() {
	if f.fast != nil {
		f.fast.Close()
	}
}

// create makes a file that is not there yet and opens it for writing.
func (f *folder) create(base string, perm fs.FileMode) (*os.File, error) {
	if f.fast == nil {
		return f.in.Root.OpenFile(path.Join(f.name, base), os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	}
	return f.fast.create(base, perm)
}

// link gives an entry a second name in another folder.
func (f *folder) link(base string, to *folder, name string) error {
	if f.fast == nil {
		return f.in.Root.Link(path.Join(f.name, base), path.Join(to.name, name))
	}
	return f.fast.link(base, to.fast, name)
}

// remove removes an entry, of a directory an empty one.
func (f *folder) remove(base string) error {
	if f.fast == nil {
		return f.in.Root.Remove(path.Join(f.name, base))
	}
	err := f.fast.remove(base)
	if errors.Is(err, syscall.EISDIR) {
		return f.in.Root.Remove(path.Join(f.name, base))
	}
	return err
}
