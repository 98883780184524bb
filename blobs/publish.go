package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// Prepare makes the directory of a path and keeps it until done is called, with
// whether a blob was published there; if not, directories that are empty go.
// Errors: ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Prepare(ctx context.Context, name string) (done func(published bool), err error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return nil, err
	}
	dir := path.Dir(name)
	if err := t.dirs.hold(dir); err != nil {
		return nil, t.wrap("make directory", dir, err)
	}
	return func(published bool) {
		t.dirs.release(dir)
		if !published {
			t.dirs.prune(dir)
		}
	}, nil
}

// Publish gives a staged blob its final path, whose directory was prepared. A
// file that is there is replaced: it is a damaged one, or an earlier attempt.
// After an error the blob is still staged. Errors: ErrPermission,
// ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Publish(ctx context.Context, key storage.BlobKey, name string) error {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return err
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	to := t.dirs.held(dir)
	if to == nil {
		return t.wrap("publish", name, fmt.Errorf("%w: its directory was not prepared", fs.ErrNotExist))
	}
	from, staged := t.staging[shardOf(key)], key.String()
	err := from.link(staged, to, base)
	if errors.Is(err, fs.ErrExist) {
		if err = to.remove(base); err == nil {
			err = from.link(staged, to, base)
		}
	}
	if err == nil {
		t.Published(key, name)
		return nil
	}
	if !noLinks(err) {
		return t.wrap("publish", name, err)
	}
	if e := t.root.Rename(stagedPath(key), name); e != nil {
		return t.wrap("publish", name, e)
	}
	t.forget(key)
	t.note(dir, "")
	return nil
}

// Published records that a blob stands at its final path, so that the next
// Settle makes that durable and then removes the staged name.
func (t *Tree) Published(key storage.BlobKey, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.staged, key)
	t.linked[key] = &link{path: name}
	t.changed[path.Dir(name)] = struct{}{}
}

// noLinks says whether an error means that there are no hard links here, or not
// between these directories: then a rename has to do.
func noLinks(err error) bool {
	for _, errno := range [...]error{syscall.EPERM, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EXDEV, syscall.EMLINK, errors.ErrUnsupported} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
