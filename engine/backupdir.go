package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// A backup is the directory of a store with some more in its control directory:
//
//	.mediabolt/backup.json   backupMarker: what it is a backup of, and whether it is whole
//	.mediabolt/backup.lock   locked by who writes it
//	.mediabolt/backup.new/   the index of the backup that is being made
//
// Files of blobs are added first, when the earlier index still is in place; so a
// backup that is killed then leaves the earlier one as it was, with files that
// nothing names yet. From the first change of what the earlier one names until the
// new index is in place, the marker says that the backup is not whole.
const (
	backupMarkerFile = "backup.json"
	backupLockFile   = "backup.lock"
	backupIndexDir   = "backup.new"
)

// backupVersion is the Version of every backupMarker.
const backupVersion = 1

// backupMarker says what a directory holds. The one of a restored store is gone when
// it is whole.
type backupMarker struct {
	Version    int        `json:"version"`
	Kind       backupKind `json:"kind"`
	Whole      bool       `json:"whole"`
	Store      string     `json:"store,omitempty"` // UUID of the store, where its index has one
	Directory  string     `json:"directory"`       // of the store when the backup was made
	At         time.Time  `json:"at"`              // the moment that it shows
	References int64      `json:"references"`
	Blobs      int64      `json:"blobs"`
	Bytes      int64      `json:"bytes"`
	Index      []string   `json:"index"` // names of the files of the index
}

type backupKind string

const (
	kindBackup  backupKind = "backup"
	kindRestore backupKind = "restore"
)

// readMarker answers nil where there is none.
func readMarker(ctl *os.Root) (*backupMarker, error) {
	data, err := ctl.ReadFile(backupMarkerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	m := new(backupMarker)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%w: %s in %s: %w", storage.ErrCorrupted, backupMarkerFile, ctl.Name(), err)
	}
	if m.Version != backupVersion {
		return nil, fmt.Errorf("%w: %s in %s has version %d, this program knows %d", storage.ErrVersion, backupMarkerFile, ctl.Name(), m.Version, backupVersion)
	}
	return m, nil
}

// refuseUnfinished refuses to open what a backup or a restore has not finished.
func refuseUnfinished(ctl *os.Root, cfg *FileStoreConfig) error {
	if cfg.unfinished {
		return nil
	}
	m, err := readMarker(ctl)
	switch {
	case err != nil, m == nil, m.Whole:
		return err
	case m.Kind == kindRestore:
		return fmt.Errorf("%w: the restore into %s was not finished: run it again, or remove the directory and do", storage.ErrCorrupted, cfg.BaseDir)
	}
	return fmt.Errorf("%w: the backup of %s in %s was not finished: run it again", storage.ErrCorrupted, m.Directory, cfg.BaseDir)
}

// backupDir is the directory of a backup that is being made.
type backupDir struct {
	path   string
	root   *os.Root
	ctl    *os.Root
	tree   *blobs.Tree
	lock   *os.File
	marker backupMarker
	next   succession
	noSync bool
}

// openBackupDir opens, or makes, the directory of a backup that is to be made. It is
// ErrConflict when something else is there: anything at all for a restore, but for
// one that was not finished.
func openBackupDir(path string, want backupMarker, next succession, cfg *FileStoreConfig) (_ *backupDir, err error) {
	d := &backupDir{path: path, marker: want, next: next, noSync: cfg.Sync == SyncNone}
	defer func() {
		if err != nil {
			err = errors.Join(storage.Classify(err), d.close())
		}
	}()
	if err := d.refuseOthers(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(path, blobs.ControlDir), cfg.DirMode); err != nil {
		return nil, err
	}
	if d.root, err = os.OpenRoot(path); err != nil {
		return nil, err
	}
	if d.ctl, err = d.root.OpenRoot(blobs.ControlDir); err != nil {
		return nil, err
	}
	if d.lock, err = d.ctl.OpenFile(backupLockFile, os.O_CREATE|os.O_RDWR, cfg.FileMode); err != nil {
		return nil, err
	}
	if !tryLock(d.lock) {
		return nil, fmt.Errorf("%w: another %s into %s is under way", storage.ErrLocked, want.Kind, path)
	}
	if err := d.begin(); err != nil {
		return nil, err
	}
	if !d.noSync {
		return d, syncAbove(path)
	}
	return d, nil
}

// refuseOthers refuses a directory that is not empty and no backup.
func (d *backupDir) refuseOthers() error {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	inside, err := os.ReadDir(filepath.Join(d.path, blobs.ControlDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	has := func(name string) bool {
		return slices.ContainsFunc(inside, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	switch {
	case has(backupMarkerFile):
		return nil
	case has(restoredFile):
		return fmt.Errorf("%w: %s is not empty: a store that was restored, to its end; use it, or name a new directory", storage.ErrConflict, d.path)
	}
	for _, e := range append(entries, inside...) {
		// What an attempt leaves that was killed before it had a marker.
		name := e.Name()
		if name != blobs.ControlDir && name != "lost+found" && name != backupLockFile && !strings.HasPrefix(name, backupMarkerFile) {
			return fmt.Errorf("%w: %s is not empty and no backup: %s is there; name a new directory", storage.ErrConflict, d.path, name)
		}
	}
	return nil
}

// begin looks at what is there, and marks a new directory.
func (d *backupDir) begin() error {
	old, err := readMarker(d.ctl)
	if err != nil {
		return err
	}
	want := &d.marker
	switch {
	case old == nil:
		want.Index = []string{}
		if err := d.mark(*want); err != nil {
			return err
		}
	case old.Kind != want.Kind, want.Kind == kindRestore && old.Whole:
		return fmt.Errorf("%w: %s is not empty: it is a %s; name a new directory", storage.ErrConflict, d.path, old.Kind)
	case old.Store != want.Store:
		return d.succeed(old)
	default:
		d.marker = *old
	}
	return nil
}

// prepare makes room for a new index, and removes what an attempt before has left.
// Nobody else has the directory open.
func (d *backupDir) prepare(cfg *FileStoreConfig) (err error) {
	if err := d.ctl.RemoveAll(backupIndexDir); err != nil {
		return err
	}
	if err := d.ctl.Mkdir(backupIndexDir, cfg.DirMode); err != nil {
		return err
	}
	d.tree, err = blobs.Open(blobs.Config{
		Root: d.root, NoSync: d.noSync, NoSyncFS: cfg.NoSyncFS, SyncFS: cfg.syncFS,
		FileMode: cfg.FileMode, DirMode: cfg.DirMode, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	return d.clearStaging()
}

// clearStaging removes what an attempt that was killed has left. Blobs that have
// their paths do not need it: they were durable before they got them.
func (d *backupDir) clearStaging() error {
	ctx := context.Background()
	staged, err := d.tree.Staged(ctx)
	for _, file := range staged {
		switch {
		case file.Spool:
			err = errors.Join(err, d.tree.Drop(ctx, file.Path))
		case file.Key != "":
			err = errors.Join(err, d.tree.Discard(ctx, file.Key))
		}
	}
	return err
}

// mark writes the marker, durably.
func (d *backupDir) mark(m backupMarker) error {
	if err := d.write(backupMarkerFile, m); err != nil {
		return err
	}
	d.marker = m
	return d.syncControl()
}

// write writes a file of the control directory in JSON, whole or not at all, and
// durable with the next sync of that.
func (d *backupDir) write(name string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	temp := name + ".tmp"
	if err := d.ctl.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := d.sync(temp); err != nil {
		return err
	}
	return d.ctl.Rename(temp, name)
}

// unmark removes the marker: what is there is a store like any other. The lock goes
// durably before it: as long as the marker is there another attempt clears away the rest.
func (d *backupDir) unmark() error {
	for _, name := range [...]string{backupLockFile, backupMarkerFile} {
		if err := d.ctl.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := d.syncControl(); err != nil {
			return err
		}
	}
	return nil
}

// sync makes a file or directory below the control directory durable.
func (d *backupDir) sync(name string) error {
	if d.noSync {
		return nil
	}
	f, err := d.ctl.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *backupDir) syncControl() error {
	if d.noSync {
		return nil
	}
	return syncDir(d.ctl.Name())
}

// newIndexFiles are the names of the files of the new index.
func (d *backupDir) newIndexFiles() ([]string, error) {
	entries, err := fs.ReadDir(d.ctl.FS(), backupIndexDir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// placeIndex puts the new index, which is closed, in the place of the earlier one.
func (d *backupDir) placeIndex() error {
	names, err := d.newIndexFiles()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.sync(backupIndexDir + "/" + name); err != nil {
			return err
		}
	}
	for _, name := range d.marker.Index {
		if err := d.ctl.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range names {
		if err := d.ctl.Rename(backupIndexDir+"/"+name, name); err != nil {
			return err
		}
	}
	if err := d.ctl.Remove(backupIndexDir); err != nil {
		return err
	}
	return d.syncControl()
}

func (d *backupDir) close() error {
	var err error
	if d.tree != nil {
		err = errors.Join(err, d.tree.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	for _, root := range [...]*os.Root{d.ctl, d.root} {
		if root != nil {
			err = errors.Join(err, root.Close())
		}
	}
	return err
}

// refuseNested refuses a directory inside the store, or the other way round: each
// would be part of the other.
func refuseNested(store, dest string) error {
	a, err := realPath(store)
	if err != nil {
		return err
	}
	b, err := realPath(dest)
	if err != nil {
		return err
	}
	if within(a, b) || within(b, a) {
		return fmt.Errorf("%w: %s and %s are one inside the other; name a directory outside", storage.ErrInvalidConfig, dest, store)
	}
	return nil
}

// realPath is a path without symbolic links, as far as it is there.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		parent, err := realPath(filepath.Dir(path))
		return filepath.Join(parent, filepath.Base(path)), err
	}
	return real, err
}

// within says whether path is dir or inside it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
