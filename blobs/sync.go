package blobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// Sync makes staged blobs durable, names and bytes. An error means that all of
// them must be discarded: a sync that failed is never tried again, for the
// kernel may have dropped the bytes. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Sync(ctx context.Context, keys ...storage.BlobKey) error {
	if err := heed(ctx); err != nil {
		return err
	}
	files := make([]*os.File, len(keys))
	t.mu.Lock()
	for i, key := range keys {
		files[i] = t.staged[key]
		t.staged[key] = nil
	}
	t.mu.Unlock()
	var err error
	switch {
	case t.cfg.NoSync:
	case t.disk != nil && len(keys) >= wholeSyncFrom:
		err = t.wrap("sync filesystem of", stagingDir, t.disk.Sync())
	default:
		err = t.syncEach(keys, files)
	}
	for i, f := range files {
		if f == nil {
			err = errors.Join(err, fmt.Errorf("sync %s: %w: not staged", keys[i], storage.ErrNotFound))
			continue
		}
		err = errors.Join(err, t.wrap("close", stagedPath(keys[i]), f.Close()))
	}
	return err
}

// syncEach syncs every file and the staging directories that name them. Both go
// on at the same time: on a journalling filesystem they wait for one commit of
// the journal instead of two.
func (t *Tree) syncEach(keys []storage.BlobKey, files []*os.File) error {
	touched := map[string]struct{}{}
	for _, key := range keys {
		touched[path.Dir(stagedPath(key))] = struct{}{}
	}
	names := make(chan error, 1)
	go func() { names <- t.syncDirs(slices.Collect(maps.Keys(touched))...) }()
	var err error
	for i, f := range files {
		if f != nil && err == nil { // Sync reports one that is nil
			err = t.wrap("sync", stagedPath(keys[i]), datasync(f))
		}
	}
	return errors.Join(err, <-names)
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
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return t.wrap("sync", name, err)
	}
	return t.wrap("sync", name, errors.Join(f.Sync(), f.Close()))
}
