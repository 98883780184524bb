package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// The quarantine is where a repair moves files of the tree instead of removing
// them, a batch at a time:
//
//	.mediabolt/quarantine/<batch>/manifest.jsonl  why each is there; its caller's
//	.mediabolt/quarantine/<batch>/files/<path>    a file, under the path that it had
//
// A file is moved by a second name that is made durable before the first goes, so
// that at every moment a durable name leads to it. A crash between leaves both,
// which Aside tells; either may go then. What has no second names, such as a
// directory, is renamed.
const (
	quarantineDir = ControlDir + "/quarantine"
	manifestName  = "manifest.jsonl"
	asideDir      = "files"
)

// maxManifest bounds a manifest that is read, in bytes.
const maxManifest = 1 << 30

func batchDir(batch string) string { return quarantineDir + "/" + batch }

// asidePath is where a batch keeps a file, or ErrInvalidQuery.
func asidePath(batch, name string) (string, error) {
	if err := checkBatch(batch); err != nil {
		return "", err
	}
	if err := checkPath(name); err != nil || name == ControlDir || strings.HasPrefix(name, ControlDir+"/") {
		return "", fmt.Errorf("%w: path %.200q: want a file of the tree", storage.ErrInvalidQuery, name)
	}
	return batchDir(batch) + "/" + asideDir + "/" + name, nil
}

// checkBatch refuses what is not one element of a path.
func checkBatch(batch string) error {
	if batch == "" || strings.HasPrefix(batch, ".") || strings.ContainsAny(batch, `/\:`) || !fs.ValidPath(batch) {
		return fmt.Errorf("%w: batch %.80q of the quarantine", storage.ErrInvalidQuery, batch)
	}
	return nil
}

// SetAside moves what is at a path of the tree to a batch, durably but for the
// end of its old name, which the next Settle makes so. Directories that are empty
// then go. Errors: ErrNotFound, ErrInvalidQuery, ErrPermission, ErrDiskSpace,
// ErrIO, or ctx's.
func (t *Tree) SetAside(ctx context.Context, batch, name string) error {
	to, err := asidePath(batch, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	if _, _, err := t.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: file %s in %s", storage.ErrNotFound, name, t.root.Name())
	}
	if err := t.root.MkdirAll(path.Dir(to), t.cfg.DirMode); err != nil {
		return t.wrap("make directory", path.Dir(to), err)
	}
	if err := t.rename(name, to); err != nil {
		return t.wrap("set aside", name, err)
	}
	t.note(t.dirs.prune(path.Dir(name)), "")
	return nil
}

// PutBack moves a file of a batch back to its path, where nothing may be; the file
// itself may. Errors: ErrNotFound, fs.ErrExist, and those of SetAside.
func (t *Tree) PutBack(ctx context.Context, batch, name string) error {
	from, err := asidePath(batch, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	done, err := t.Prepare(ctx, name)
	if err != nil {
		return err
	}
	err = t.rename(from, name)
	done(err == nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: file %s of batch %s in %s", storage.ErrNotFound, name, batch, t.root.Name())
	case err != nil:
		return t.wrap("put back", name, err)
	}
	t.note(path.Dir(name), "")
	t.note(path.Dir(from), "")
	return nil
}

// rename moves a file to a name that nothing else has, whose directory is there.
func (t *Tree) rename(from, to string) error {
	err := t.root.Link(from, to)
	switch {
	case errors.Is(err, fs.ErrExist):
		if same, e := t.sameFile(from, to); e != nil || !same {
			return errors.Join(err, e)
		}
	case err != nil && noLinks(err):
		if _, _, e := t.root.Lstat(to); !errors.Is(e, fs.ErrNotExist) {
			return errors.Join(fs.ErrExist, e)
		}
		if err := t.root.Rename(from, to); err != nil {
			return err
		}
		return t.syncAbove(path.Dir(to))
	case err != nil:
		return err
	}
	if err := t.syncAbove(path.Dir(to)); err != nil {
		return err
	}
	return t.root.Remove(from)
}

// syncAbove makes the entries of a directory durable, and its own name.
func (t *Tree) syncAbove(dir string) error {
	if t.cfg.NoSync {
		return nil
	}
	return t.syncUpwards([]string{dir})
}

func (t *Tree) sameFile(a, b string) (bool, error) {
	first, err := t.root.Root.Lstat(a)
	if err != nil {
		return false, err
	}
	second, err := t.root.Root.Lstat(b)
	return err == nil && os.SameFile(first, second), err
}

// Aside tells what a batch has of a file. Errors: ErrInvalidQuery, ErrPermission,
// ErrIO, or ctx's.
func (t *Tree) Aside(ctx context.Context, batch, name string) (storage.AsideFile, error) {
	at, err := asidePath(batch, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return storage.AsideFile{}, err
	}
	size, mode, err := t.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return storage.AsideFile{}, nil
	} else if err != nil {
		return storage.AsideFile{}, t.wrap("look at", at, err)
	}
	file := storage.AsideFile{There: true}
	if mode == 0 {
		file.Size = size
	}
	if file.InTree, err = t.sameFile(at, name); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return file, t.wrap("look at", name, err)
}

// ReadAside reads the sidecar of a blob that a batch has. Errors: ErrInvalidQuery, and
// those of ReadSidecar.
func (t *Tree) ReadAside(ctx context.Context, batch, name string) (storage.Sidecar, error) {
	at, err := asidePath(batch, name)
	if err != nil {
		return storage.Sidecar{}, err
	}
	return t.ReadSidecar(ctx, at)
}

// ForgetAside removes the name that a batch has for a file that has its name in
// the tree too. Errors are those of Aside.
func (t *Tree) ForgetAside(ctx context.Context, batch, name string) error {
	file, err := t.Aside(ctx, batch, name)
	if err != nil || !file.InTree {
		return err
	}
	at, err := asidePath(batch, name)
	if err != nil {
		return err
	}
	// The name that stays has to be durable first.
	if err := t.syncAbove(path.Dir(name)); err != nil {
		return err
	}
	t.note(path.Dir(at), "")
	return t.wrap("remove", at, t.root.Remove(at))
}

// NoteAside appends lines, each with its newline, to the manifest of a batch and
// makes them durable. Errors: those of SetAside.
func (t *Tree) NoteAside(ctx context.Context, batch string, lines []byte) (err error) {
	if err := errors.Join(ctx.Err(), checkBatch(batch)); err != nil {
		return err
	}
	name := batchDir(batch) + "/" + manifestName
	if err := t.root.MkdirAll(batchDir(batch), t.cfg.DirMode); err != nil {
		return t.wrap("make directory", batchDir(batch), err)
	}
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NONBLOCK, t.cfg.FileMode)
	if err != nil {
		return t.wrap("open", name, err)
	}
	defer func() { err = errors.Join(err, t.wrap("close", name, f.Close())) }()
	info, err := f.Stat()
	if err != nil {
		return t.wrap("look at", name, err)
	}
	if size := info.Size(); size > 0 {
		// What a crash cut short must not swallow the next line.
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return t.wrap("read", name, err)
		}
		if last[0] != '\n' {
			lines = append([]byte{'\n'}, lines...)
		}
	}
	if _, err := f.Write(lines); err != nil {
		return t.wrap("append to", name, err)
	}
	if t.cfg.NoSync {
		return nil
	}
	if err := f.Sync(); err != nil {
		return t.wrap("sync", name, err)
	}
	return t.syncAbove(batchDir(batch))
}

// Batches lists the batches of the quarantine, in order of their names. Errors:
// ErrPermission, ErrIO, or ctx's.
func (t *Tree) Batches(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(t.root.FS(), quarantineDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, t.wrap("list", quarantineDir, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && checkBatch(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Manifest is the manifest of a batch, empty where there is none. Errors are those
// of Aside, and ErrCorrupted.
func (t *Tree) Manifest(ctx context.Context, batch string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), checkBatch(batch)); err != nil {
		return nil, err
	}
	name := batchDir(batch) + "/" + manifestName
	f, size, err := t.openRegular(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err == nil && size > maxManifest:
		err = errors.Join(fmt.Errorf("%w: %d bytes", storage.ErrCorrupted, size), f.Close())
	}
	if err != nil {
		return nil, t.wrap("open", name, err)
	}
	data, err := io.ReadAll(f)
	return data, t.wrap("read", name, errors.Join(err, f.Close()))
}

// Purge removes a batch with all that is in it, for good: the files first, so
// that a manifest tells of what an interruption left. Errors are those of Aside.
func (t *Tree) Purge(ctx context.Context, batch string) error {
	if err := errors.Join(ctx.Err(), checkBatch(batch)); err != nil {
		return err
	}
	aside := batchDir(batch) + "/" + asideDir
	if err := t.removeFiles(ctx, aside); err != nil {
		return err
	}
	for _, name := range [...]string{aside, batchDir(batch)} {
		if err := t.root.RemoveAll(name); err != nil {
			return t.wrap("remove", name, err)
		}
	}
	t.note(quarantineDir, "")
	return nil
}

// removeFiles removes the files below a directory, which may be many, until ctx ends.
func (t *Tree) removeFiles(ctx context.Context, dir string) error {
	return fs.WalkDir(t.root.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return t.wrap("list", name, err)
		case e.IsDir():
			return nil
		}
		return t.wrap("remove", name, t.root.Remove(name))
	})
}
