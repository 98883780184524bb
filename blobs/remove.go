package blobs

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"github.com/mediabolt/mediabolt/storage"
)

// Remove removes a blob, its sidecar, its staged name if that is still there,
// and the directories that are empty then. What is not there is no error. key
// is empty when only the path is known. Errors: ErrPermission, ErrIO, or ctx's.
func (t *Tree) Remove(ctx context.Context, key storage.BlobKey, name string) error {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return err
	}
	if key != "" {
		if err := t.removeLinked(ctx, key, name); err != nil {
			return err
		}
	}
	for _, file := range [...]string{name, name + metaSuffix} {
		if err := t.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return t.wrap("remove", file, err)
		}
	}
	t.note(t.dirs.prune(path.Dir(name)), "")
	return nil
}

// removeLinked removes the staged name of the blob that was published to name,
// unless another blob of that key is staged by now.
func (t *Tree) removeLinked(ctx context.Context, key storage.BlobKey, name string) error {
	t.mu.Lock()
	l := t.linked[key]
	ours := l != nil && l.path == name
	t.mu.Unlock()
	if !ours {
		return nil
	}
	return t.Discard(ctx, key)
}
