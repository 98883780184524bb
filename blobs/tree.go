// Package blobs keeps blobs as plain files in a directory tree that a person
// can browse. It names, stages, publishes, opens and removes them, and writes
// the sidecars beside them. It never hears of the index.
//
// # The tree
//
//	BASE/
//	  .mediabolt/staging/<0-7>/<blob key>     staged, see below
//	  .mediabolt/staging/<0-7>/<uuid>.part    a stream whose key is not known yet
//	  session-xyz/conv-123/a1b2c3-<uuid>.png        blob
//	  session-xyz/conv-123/a1b2c3-<uuid>.png.meta   sidecar, see sidecar.go
//
// name.go says how IDs become directories and how files are named. No two
// blobs ever share a path, not even one after the other, for the UUID in the
// name is of the reference that brought the bytes.
//
// # Order of syncs
//
//	Stage, Claim   create and write <blob key>               nothing is durable
//	Sync           sync the file and its staging directory    bytes and name are durable
//	               (the caller commits its row here)
//	Publish        link the staged file to its final path     two names, the first durable
//	Settle         sync the final directories, then unlink    final name is durable first
//	               the staged names
//
// A rename in place of link and unlink would do where a rename between two
// directories is one atomic change on disk. Linking needs no such assumption:
// at every moment one durable name leads to the bytes. Where the filesystem
// has no hard links, Publish renames.
//
// Sync serves a whole group: with a syncfs(2) of the filesystem for a large one
// on Linux, with a sync per file and per staging directory otherwise.
//
// # Containment
//
// Every access goes through beneath (beneath.go), out of which no ".." and no
// symbolic link leads.
package blobs

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/storage"
)

// ControlDir is the directory inside the base directory that holds no blobs.
const ControlDir = ".mediabolt"

// StagingDir and QuarantineDir are inside it: what is not published yet, and what a
// repair has moved away. They are relative to the base directory.
const (
	StagingDir    = stagingDir
	QuarantineDir = quarantineDir
)

const (
	stagingDir = ControlDir + "/staging"
	partSuffix = ".part"
	metaSuffix = ".meta"
)

// shards is the number of staging directories. One alone cost 20 to 40 % at 64
// writers, for the kernel locks a directory while a file is created in it.
const shards = 8

// Config says where and how blobs are kept. Only Root is required.
type Config struct {
	// Root is the base directory. The tree keeps it open, and does not close
	// it.
	Root *os.Root
	// NoSync leaves out every sync.
	NoSync bool
	// NoSyncFS never syncs the whole filesystem, which also flushes what
	// other programs wrote to it. Costs throughput with many writers.
	NoSyncFS bool
	// SyncFS takes the place of syncfs(2) where that does not reach the
	// filesystem's server. Nil: syncfs(2).
	SyncFS func() error
	// FileMode and DirMode of what is made. Zero: 0600 and 0700.
	FileMode, DirMode fs.FileMode
	// Logger gets what no caller waits for. Nil: nothing is logged.
	Logger *slog.Logger
}

// Tree is a directory tree of blobs. It is safe for concurrent use, except
// that calls for one key or one path need their caller's own order.
type Tree struct {
	root    beneath
	cfg     Config
	log     *slog.Logger
	dirs    *dirs
	staging [shards]*folder
	disk    *filesystem // for the syncfs of Sync; nil where that is not to be used
	// settler is for the syncfs of Settle: the kernel tells each descriptor of
	// a write error once, and Settle must not be told in place of Sync.
	settler  *filesystem
	distrust atomic.Bool // a syncfs has failed, so none is used any more
	settling sync.Mutex  // held by Settle; taken before mu

	// mu guards the rest. It is held during file access by unstage and
	// inUse alone. What is staged or spooled here is in these maps before its
	// file is made and until it is gone.
	mu       sync.Mutex
	staged   map[storage.BlobKey]*os.File // not published yet; nil once synced
	spools   map[string]struct{}          // being written, or waiting to be claimed
	linked   map[storage.BlobKey]*link    // published, the staged name still there
	changed  map[string]struct{}          // directories with changes that are not durable
	sidecars map[string]struct{}          // sidecars with lines that are not durable
}

// link is a published blob whose staged name is still there.
type link struct {
	path     string
	doubtful bool // could not be made durable: the staged name stays
}

// Open makes the staging directories and returns the tree. Errors:
// ErrPermission, ErrDiskSpace, ErrIO.
func Open(cfg Config) (*Tree, error) {
	if cfg.FileMode == 0 {
		cfg.FileMode = 0o600
	}
	if cfg.DirMode == 0 {
		cfg.DirMode = 0o700
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tree{
		cfg: cfg, log: cfg.Logger,
		staged:   map[storage.BlobKey]*os.File{},
		spools:   map[string]struct{}{},
		linked:   map[storage.BlobKey]*link{},
		changed:  map[string]struct{}{},
		sidecars: map[string]struct{}{},
	}
	var err error
	if t.root, err = newBeneath(cfg.Root); err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Root.Name(), storage.Classify(err))
	}
	t.dirs = &dirs{root: t.root, mode: cfg.DirMode, pins: map[string]*pin{}}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Tree) open() error {
	var err error
	if t.dirs.base, err = t.root.openFolder(".", t.cfg.DirMode); err != nil {
		return t.wrap("open", ".", err)
	}
	for i := range t.staging {
		if t.staging[i], err = t.root.openFolder(shard(i), t.cfg.DirMode); err != nil {
			return t.wrap("make staging directory", shard(i), err)
		}
	}
	if t.cfg.NoSync {
		return nil
	}
	if err := t.syncDirs(stagingDir, ControlDir, "."); err != nil {
		return err
	}
	if t.cfg.NoSyncFS {
		return nil
	}
	if t.disk, err = openFilesystem(t.cfg.Root, t.cfg.SyncFS); err == nil {
		t.settler, err = openFilesystem(t.cfg.Root, t.cfg.SyncFS)
	}
	return t.wrap("open", ".", err)
}

// Used says whether the base directory has held a store with a tree: then an
// index that is missing was lost.
func Used(root *os.Root) (bool, error) {
	_, err := root.Lstat(stagingDir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Close closes what the tree holds open. Nothing may be under way, and nothing
// may follow.
func (t *Tree) Close() error {
	err := t.root.Close()
	for key, f := range t.staged {
		delete(t.staged, key)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	for _, f := range append(t.staging[:], t.dirs.base) {
		if f != nil {
			f.Close()
		}
	}
	for _, disk := range [...]*filesystem{t.disk, t.settler} {
		if disk != nil {
			err = errors.Join(err, disk.Close())
		}
	}
	return err
}

// wrap says what was done to which path, and classifies.
func (t *Tree) wrap(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s in %s: %w", what, name, t.root.Name(), storage.Classify(err))
}

// shardNames are the staging directories.
var shardNames = func() (names [shards]string) {
	for i := range names {
		names[i] = stagingDir + "/" + strconv.Itoa(i)
	}
	return names
}()

// shard is a staging directory.
func shard(i int) string { return shardNames[i] }

// shardOf is in which of them a key is staged, by the last byte of its digest or
// UUID: what a scope adds behind is the same for many.
func shardOf(key storage.BlobKey) int {
	return int(key[min(len(key), 1+len(storage.Digest{}))-1]) % shards
}

// stagedPath is where a key is staged.
func stagedPath(key storage.BlobKey) string { return shard(shardOf(key)) + "/" + key.String() }

// checkPath refuses a path that no row of ours can have, before it reaches the
// disk.
func checkPath(p string) error {
	if !fs.ValidPath(p) || p == "." || path.Clean(p) != p {
		return fmt.Errorf("%w: path %q", storage.ErrCorrupted, p)
	}
	return nil
}

// hold records what is staged under a key; f is nil until it is open.
func (t *Tree) hold(key storage.BlobKey, f *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.staged[key] = f
	delete(t.linked, key)
}

// forget drops a staged name that is gone.
func (t *Tree) forget(key storage.BlobKey) (f *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f = t.staged[key]
	delete(t.staged, key)
	delete(t.linked, key)
	return f
}

// keepSpool records that a spool is somebody's, or that it no longer is.
func (t *Tree) keepSpool(name string, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if keep {
		t.spools[name] = struct{}{}
	} else {
		delete(t.spools, name)
	}
}

func (t *Tree) note(dir string, sidecar string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed[dir] = struct{}{}
	if sidecar != "" {
		t.sidecars[sidecar] = struct{}{}
	}
}
