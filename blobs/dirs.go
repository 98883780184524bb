package blobs

import (
	"io/fs"
	"path"
	"sync"
)

// dirs makes directories for blobs and removes them when they are empty. A
// directory that is held is never removed, so that a publish finds it there.
type dirs struct {
	root beneath
	mode fs.FileMode
	base *folder

	mu   sync.Mutex      // guards pins, and is held while a directory is removed
	pins map[string]*pin // of each directory that is held, and of those above it
}

// pin keeps a directory from being removed.
type pin struct {
	holders int     // of the directory and of those below it
	folder  *folder // nil unless the directory itself was opened
}

// hold makes dir, with its parents, and keeps it until release.
func (d *dirs) hold(dir string) error {
	if dir == "." || d.pin(dir) {
		return nil
	}
	f, err := d.root.openFolder(dir, d.mode)
	if err != nil {
		d.release(dir)
		d.prune(dir)
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pins[dir]; p.folder == nil {
		p.folder = f
	} else { // another holder was faster
		f.Close()
	}
	return nil
}

// pin counts a holder, and says whether the directory is open already.
func (d *dirs) pin(dir string) (open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := dir; at != "."; at = path.Dir(at) {
		if d.pins[at] == nil {
			d.pins[at] = &pin{}
		}
		d.pins[at].holders++
	}
	return d.pins[dir].folder != nil
}

// held is a directory that the caller holds, nil if nobody does.
func (d *dirs) held(dir string) *folder {
	if dir == "." {
		return d.base
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pins[dir]; p != nil {
		return p.folder
	}
	return nil
}

// release ends a hold.
func (d *dirs) release(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; dir != "."; dir = path.Dir(dir) {
		p := d.pins[dir]
		if p.holders--; p.holders > 0 {
			continue
		}
		delete(d.pins, dir)
		if p.folder != nil {
			p.folder.Close()
		}
	}
}

// prune removes dir and then its parents, as far as they are empty and nobody
// holds them. It returns the directory whose entries it changed last, or dir.
func (d *dirs) prune(dir string) string {
	for dir != "." && d.removeEmpty(dir) {
		dir = path.Dir(dir)
	}
	return dir
}

// busy says whether somebody holds dir or a directory in it.
func (d *dirs) busy(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pins[dir] != nil
}

func (d *dirs) removeEmpty(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pins[dir] != nil {
		return false
	}
	// A symbolic link that a person made here is not ours to remove.
	if info, err := d.root.Root.Lstat(dir); err != nil || !info.IsDir() {
		return false
	}
	return d.root.Root.Remove(dir) == nil
}
