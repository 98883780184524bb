package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// Sync makes staged blobs durable, names and bytes. An error means that all of
// them must be discarded: a sync that failed is never tried again, for the
// kernel may have dropped the bytes. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Sync(ctx context.Context, keys ...storage.BlobKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	files, err := t.takeStaged(keys)
	switch {
	case err != nil, t.cfg.NoSync:
	case t.disk != nil && len(keys) >= wholeSyncFrom && !t.distrust.Load():
		err = t.wrap("sync filesystem of", stagingDir, t.wholeSync(t.disk))
	default:
		err = t.syncEach(keys, files)
	}
	for i, f := range files {
		if f == nil {
			continue
		}
		if e := f.Close(); e != nil {
			err = errors.Join(err, t.wrap("close", stagedPath(keys[i]), e))
		}
	}
	return err
}

// wholeSync syncs the filesystem. An error may concern any file, also one of a
// later group, whose own syncfs would not be told any more: from then on every
// file is synced by itself.
func (t *Tree) wholeSync(disk *filesystem) error {
	err := disk.Sync()
	if err != nil && t.distrust.CompareAndSwap(false, true) {
		t.log.Warn("syncfs has failed: every file is synced by itself from now on", "store", t.root.Name(), "error", err)
	}
	return err
}

// takeStaged returns the open files of staged blobs, and opens those that an
// earlier process has staged.
func (t *Tree) takeStaged(keys []storage.BlobKey) ([]*os.File, error) {
	files := make([]*os.File, len(keys))
	t.mu.Lock()
	for i, key := range keys {
		if files[i] = t.staged[key]; files[i] != nil {
			t.staged[key] = nil
		}
	}
	t.mu.Unlock()
	for i, key := range keys {
		if files[i] != nil {
			continue
		}
		f, err := t.root.OpenFile(stagedPath(key), os.O_RDWR|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: not staged", storage.ErrNotFound)
		}
		if err != nil {
			return files, t.wrap("sync", stagedPath(key), err)
		}
		files[i] = f
	}
	return files, nil
}

// syncEach syncs every file and the staging directories that name them. Both go
// on at the same time: on a journalling filesystem they wait for one commit of
// the journal instead of two.
func (t *Tree) syncEach(keys []storage.BlobKey, files []*os.File) error {
	touched := map[string]struct{}{}
	for _, key := range keys {
		touched[shard(shardOf(key))] = struct{}{}
	}
	names := make(chan error, 1)
	go func() { names <- t.syncDirs(slices.Collect(maps.Keys(touched))...) }()
	var err error
	for i, f := range files {
		if e := datasync(f); e != nil {
			err = t.wrap("sync", stagedPath(keys[i]), e)
			break
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
