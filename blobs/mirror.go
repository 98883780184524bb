package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/mediabolt/mediabolt/storage"
)

// lineBuffers hold lines until they are written.
var lineBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// AppendSidecar appends lines to the sidecar of a blob, in one write. Where it is
// missing, a line that is First creates it; without one that is ErrNotFound.
// Lines of one sidecar may be appended at the same time. They are durable after
// the next Settle. Other errors: ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) AppendSidecar(ctx context.Context, blob *storage.BlobRow, lines ...storage.SidecarLine) error {
	if err := errors.Join(ctx.Err(), checkPath(blob.Path)); err != nil {
		return err
	}
	name := blob.Path + metaSuffix
	flag := os.O_WRONLY | os.O_APPEND | syscall.O_NONBLOCK
	data := lineBuffers.Get().(*bytes.Buffer)
	defer lineBuffers.Put(data)
	data.Reset()
	for i := range lines {
		if lines[i].First {
			flag |= os.O_CREATE
		}
		if lines[i].AfterTorn {
			data.WriteByte('\n')
		}
		if err := encodeLine(data, blob, &lines[i]); err != nil {
			return t.wrap("encode line of", name, err)
		}
	}
	err := t.root.appendTo(name, flag, t.cfg.FileMode, data.Bytes())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: sidecar %s in %s", storage.ErrNotFound, name, t.root.Name())
	}
	if err != nil {
		return t.wrap("append to", name, err)
	}
	t.note(path.Dir(name), name)
	return nil
}

// RenewSidecar writes again what the sidecar of the blob at a path holds from an
// offset in bytes on, so that the next Settle makes it durable even where an
// earlier sync of it has failed: after that the kernel takes for written what is
// in its memory alone. Errors: ErrNotFound, ErrPermission, ErrDiskSpace, ErrIO,
// or ctx's.
func (t *Tree) RenewSidecar(ctx context.Context, name string, from int64) error {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return err
	}
	side := name + metaSuffix
	f, err := t.root.OpenFile(side, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: sidecar %s in %s", storage.ErrNotFound, side, t.root.Name())
	}
	if err != nil {
		return t.wrap("open", side, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, from, maxSidecar))
	if err == nil {
		_, err = f.WriteAt(data, from)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return t.wrap("renew", side, err)
	}
	t.note(path.Dir(name), side)
	return nil
}

// KeepSidecar has the next Settle make the sidecar of the blob at a path durable, and its
// name and that of the blob, as a process has left them that did not come to that.
func (t *Tree) KeepSidecar(name string) { t.note(path.Dir(name), name+metaSuffix) }

// maxSidecar bounds a sidecar that is read whole, in bytes: a million lines
// and more.
const maxSidecar = 1 << 30

// ReadSidecar reads the sidecar of the blob at a path. Errors: ErrNotFound,
// ErrPermission, ErrIO, or ctx's.
func (t *Tree) ReadSidecar(ctx context.Context, name string) (storage.Sidecar, error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return storage.Sidecar{}, err
	}
	name += metaSuffix
	f, size, err := t.openRegular(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return storage.Sidecar{}, fmt.Errorf("%w: sidecar %s in %s", storage.ErrNotFound, name, t.root.Name())
	case err == nil && size > maxSidecar:
		err = errors.Join(fmt.Errorf("%w: %d bytes", storage.ErrCorrupted, size), f.Close())
	}
	if err != nil {
		return storage.Sidecar{}, t.wrap("open", name, err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return storage.Sidecar{}, t.wrap("read", name, err)
	}
	return decodeSidecar(data), nil
}
