package blobs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"

	"github.com/mediabolt/mediabolt/storage"
)

// Stage writes data under the key, where no reader looks. An earlier staged
// file of that key is replaced. After an error nothing is staged. Errors:
// ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Stage(ctx context.Context, key storage.BlobKey, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.hold(key, nil)
	f, err := t.createStaged(key)
	if err != nil {
		t.forget(key)
		return t.wrap("stage", stagedPath(key), err)
	}
	if _, err := f.Write(data); err != nil {
		err = errors.Join(err, f.Close(), t.root.Remove(stagedPath(key)))
		t.forget(key)
		return t.wrap("stage", stagedPath(key), err)
	}
	if len(data) >= earlyFrom && !t.cfg.NoSync {
		beginWriting(f, 0, int64(len(data)))
	}
	t.hold(key, f)
	return nil
}

// createStaged creates the file exclusively: what is in the way is the staged
// name of a blob that was published and has been deleted or damaged since.
func (t *Tree) createStaged(key storage.BlobKey) (*os.File, error) {
	dir, name := t.staging[shardOf(key)], key.String()
	f, err := dir.create(name, t.cfg.FileMode)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := dir.remove(name); err != nil {
		return nil, err
	}
	return dir.create(name, t.cfg.FileMode)
}

// Discard removes a staged blob that has not been published, durably with the
// next Settle. One that is not there is no error.
func (t *Tree) Discard(ctx context.Context, key storage.BlobKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := stagedPath(key)
	err := t.staging[shardOf(key)].remove(key.String())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if f := t.forget(key); f != nil {
		err = errors.Join(err, f.Close())
	}
	t.note(path.Dir(name), "")
	return t.wrap("discard", name, err)
}
