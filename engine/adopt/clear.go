package adopt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/mediabolt/mediabolt/storage"
)

// clear removes from the source what was taken: the file, once its copy was read back
// from the store and while it is still the file that was read, what goes with it, and
// directories that have become empty.
func (t *taker) clear(ctx context.Context, k *taking) {
	if !k.free || k.err != nil || ctx.Err() != nil {
		return
	}
	if k.info != nil {
		if k.err = t.readBack(ctx, k); k.err != nil {
			return
		}
		if err := t.removeFile(k); err != nil {
			k.item.Odd, k.item.Detail = OddKept, err.Error()
			return
		}
		k.item.Removed = true
	}
	t.options.reach("removed")
	for _, name := range k.c.belongs {
		if err := t.src.root.Remove(filepath.FromSlash(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.item.Odd, k.item.Detail = OddKept, err.Error()
			return
		}
	}
	for dir := path.Dir(k.c.path); dir != "."; dir = path.Dir(dir) {
		if t.src.root.Remove(filepath.FromSlash(dir)) != nil {
			return // it is not empty
		}
	}
}

// readBack compares what the store has with what was read from the source.
func (t *taker) readBack(ctx context.Context, k *taking) (err error) {
	b, err := t.store.Open(ctx, k.ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	hash := sha256.New()
	if _, err := io.Copy(hash, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return b.Read(p)
	})); err != nil {
		return fmt.Errorf("read back %s, taken from %s: %w", k.ref.ID, k.c.path, err)
	}
	var got storage.Digest
	if hash.Sum(got[:0]); got != k.sum {
		return fmt.Errorf("%w: %s has SHA-256 %s, and was taken from %s with %s", storage.ErrCorrupted, k.ref.ID, got, k.c.path, k.sum)
	}
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (t *taker) removeFile(k *taking) error {
	name := filepath.FromSlash(k.c.path)
	now, err := t.src.root.Lstat(name)
	if err != nil {
		return err
	}
	if !os.SameFile(now, k.info) || now.Size() != k.info.Size() || !now.ModTime().Equal(k.info.ModTime()) {
		return errors.New("changed after it was read")
	}
	return t.src.root.Remove(name)
}
