package blobs

import (
	"io/fs"
	"os"
	"path"
	"sync"
)

// dirs makes directories for blobs and removes them when they are empty. A
// directory that is held is never removed, so that a publish finds it there.
type dirs struct {
	root *os.Root
	mode fs.FileMode

	mu   sync.Mutex     // guards pins, and is held while a directory is removed
	pins map[string]int // holders of each directory and of those below it
}

// hold makes dir, with its parents, and keeps it until release.
func (d *dirs) hold(dir string) error {
	if dir == "." {
		return nil
	}
	d.pin(dir, 1)
	if err := d.root.MkdirAll(dir, d.mode); err != nil {
		d.pin(dir, -1)
		d.prune(dir)
		return err
	}
	return nil
}

func (d *dirs) release(dir string) { d.pin(dir, -1) }

func (d *dirs) pin(dir string, by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; dir != "."; dir = path.Dir(dir) {
		if d.pins[dir] += by; d.pins[dir] == 0 {
			delete(d.pins, dir)
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

func (d *dirs) removeEmpty(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pins[dir] > 0 {
		return false
	}
	// A symbolic link that a person made here is not ours to remove.
	if info, err := d.root.Lstat(dir); err != nil || !info.IsDir() {
		return false
	}
	return d.root.Remove(dir) == nil
}
