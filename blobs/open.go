package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// Open opens the file of a blob for reading: at its path or, while it is not
// published yet, in staging. Errors: ErrNotFound, ErrPermission, ErrIO, or
// ctx's.
func (t *Tree) Open(ctx context.Context, key storage.BlobKey, name string) (storage.File, int64, error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return nil, 0, err
	}
	f, size, err := t.openRegular(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, size, e := t.OpenStaged(ctx, key); e == nil {
			return f, size, nil
		}
		// It may have been published between the two looks.
		f, size, err = t.openRegular(name)
	}
	switch {
	case err == nil:
		return f, size, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: file %s in %s", storage.ErrNotFound, name, t.root.Name())
	}
	return nil, 0, t.wrap("open", name, err)
}

// OpenStaged opens what is staged under a key. Errors are those of Open.
func (t *Tree) OpenStaged(ctx context.Context, key storage.BlobKey) (storage.File, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	name := stagedPath(key)
	f, size, err := t.openRegular(name)
	switch {
	case err == nil:
		return f, size, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: staged file %s in %s", storage.ErrNotFound, name, t.root.Name())
	}
	return nil, 0, t.wrap("open", name, err)
}

func (t *Tree) openRegular(name string) (*os.File, int64, error) {
	// A pipe in place of the file must not block the opening.
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		// A link that leads out of the store, or in circles.
		if _, mode, e := t.root.Lstat(name); e == nil && mode == fs.ModeSymlink && !errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: %s is no regular file but a link: %w", storage.ErrCorrupted, name, err)
		}
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no regular file but %s", storage.ErrCorrupted, name, info.Mode().Type())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Size is the size in bytes of the file at a path, ErrNotFound if there is
// none. Other errors: ErrCorrupted for what is no regular file, ErrPermission,
// ErrIO, or ctx's.
func (t *Tree) Size(ctx context.Context, name string) (int64, error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return 0, err
	}
	size, mode, err := t.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("%w: file %s in %s", storage.ErrNotFound, name, t.root.Name())
	case err != nil:
		return 0, t.wrap("look at", name, err)
	case mode != 0:
		return 0, fmt.Errorf("%w: %s in %s is no regular file but %s", storage.ErrCorrupted, name, t.root.Name(), mode)
	}
	return size, nil
}

// Linked says whether what is staged under the key is the very file at the path,
// under two names. Errors are those of Open.
func (t *Tree) Linked(ctx context.Context, key storage.BlobKey, name string) (bool, error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return false, err
	}
	var infos [2]fs.FileInfo
	for i, name := range [...]string{stagedPath(key), name} {
		info, err := t.root.Root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("%w: file %s in %s", storage.ErrNotFound, name, t.root.Name())
		case err != nil:
			return false, t.wrap("look at", name, err)
		}
		infos[i] = info
	}
	return os.SameFile(infos[0], infos[1]), nil
}
