package blobs

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
)

// walkPage is how many entries of one directory a walk goes through at a time. It has
// twice as many in memory, of about 128 bytes: 64 MiB, be the directory of any size.
// One that is larger is read again for each page, a second or two for a million.
const walkPage = 1 << 18

// walkChunk is how many entries are asked of the system at a time.
const walkChunk = 1024

// walk goes through directories in lexical order, as fs.WalkDir, but a page at a time.
type walk struct {
	fsys fs.FS
	page int
	// found is called for every entry; it calls dir for what is to be entered.
	found func(name string, e fs.DirEntry) error
	// failed makes the error of a directory that cannot be read.
	failed func(name string, err error) error
}

// dir goes through one directory. One that is gone is empty, unless it is the first.
func (w *walk) dir(name string) error {
	after := ""
	for more := true; more; {
		var page []fs.DirEntry
		var err error
		page, more, err = w.read(name, after)
		if errors.Is(err, fs.ErrNotExist) && name != "." {
			return nil
		} else if err != nil {
			return w.failed(name, err)
		}
		for _, e := range page {
			if err := w.found(path.Join(name, e.Name()), e); err != nil {
				return err
			}
			after = e.Name()
		}
	}
	return nil
}

// read is the first page of the entries of a directory that come after a name.
func (w *walk) read(name, after string) (page []fs.DirEntry, more bool, err error) {
	f, err := w.fsys.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	dir, is := f.(fs.ReadDirFile)
	if !is {
		return nil, false, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	shorten := func() {
		slices.SortFunc(page, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
		if len(page) > w.page {
			clear(page[w.page:])
			page, more = page[:w.page], true
		}
	}
	for {
		chunk, err := dir.ReadDir(walkChunk)
		for _, e := range chunk {
			// Behind a full page there is no need of it yet.
			if e.Name() > after && (!more || e.Name() < page[w.page-1].Name()) {
				page = append(page, e)
			}
			if len(page) >= 2*w.page {
				shorten()
			}
		}
		if err == io.EOF {
			shorten()
			return page, more, nil
		} else if err != nil {
			return nil, false, err
		}
	}
}
