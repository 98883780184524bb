package blobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"

	"github.com/mediabolt/mediabolt/storage"
)

// syncItem is one staged file that waits to become durable.
type syncItem struct {
	key  storage.BlobKey
	file *os.File
	err  error
}

// Sync makes a staged blob durable, name and bytes, together with those of
// whoever waits at the same time. An error means that the blob must be
// discarded: a sync that failed is never tried again, for the kernel may have
// dropped the bytes. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Sync(ctx context.Context, key storage.BlobKey) error {
	t.mu.Lock()
	f := t.staged[key]
	t.mu.Unlock()
	if f == nil {
		return fmt.Errorf("sync %s: %w: not staged", key, storage.ErrNotFound)
	}
	item := &syncItem{key: key, file: f}
	if err := t.syncs.Do(ctx, item); err != nil {
		return err
	}
	return t.wrap("sync", stagedPath(key), item.err)
}

// syncGroup is the group step of Sync.
func (t *Tree) syncGroup(items []*syncItem) {
	switch {
	case t.cfg.NoSync:
	case t.disk != nil && len(items) >= wholeSyncFrom:
		err := t.disk.Sync()
		for _, it := range items {
			it.err = err
		}
	default:
		t.syncEach(items)
	}
	t.mu.Lock()
	for _, it := range items {
		t.staged[it.key] = nil
	}
	t.mu.Unlock()
	for _, it := range items {
		it.err = errors.Join(it.err, it.file.Close())
	}
}

// syncEach syncs every file, then the staging directories that name them.
func (t *Tree) syncEach(items []*syncItem) {
	touched := map[string]error{}
	for _, it := range items {
		it.err = datasync(it.file)
		touched[path.Dir(stagedPath(it.key))] = nil
	}
	for dir := range touched {
		touched[dir] = t.syncDirs(dir)
	}
	for _, it := range items {
		it.err = errors.Join(it.err, touched[path.Dir(stagedPath(it.key))])
	}
}

// syncDirs makes the entries of directories durable.
func (t *Tree) syncDirs(names ...string) error {
	if runtime.GOOS == "windows" {
		return nil // has no sync of directories
	}
	for _, name := range names {
		if err := t.syncPath(name); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) syncPath(name string) error {
	f, err := t.root.Open(name)
	if err != nil {
		return t.wrap("sync", name, err)
	}
	return t.wrap("sync", name, errors.Join(f.Sync(), f.Close()))
}
