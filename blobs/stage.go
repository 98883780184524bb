package blobs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// Stage writes data under the key, where no reader looks. An earlier staged
// file of that key is replaced. After an error nothing is staged. Errors:
// ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Stage(ctx context.Context, key storage.BlobKey, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := stagedPath(key)
	t.hold(key, nil)
	f, err := t.createStaged(key)
	if err != nil {
		t.forget(key)
		return t.wrap("stage", name, err)
	}
	if _, err := f.Write(data); err != nil {
		err = errors.Join(err, f.Close(), t.root.Remove(name))
		t.forget(key)
		return t.wrap("stage", name, err)
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

// spoolBuffer is how much of a stream is in memory at a time, in bytes.
const spoolBuffer = 256 << 10

var spoolBuffers = sync.Pool{New: func() any { return new([spoolBuffer]byte) }}

// Spool writes a stream whose key is not known yet and returns its name, for
// Claim or Drop. After an error nothing is left. Errors: those of Stage, and
// r's own.
func (t *Tree) Spool(ctx context.Context, id storage.UUID, r io.Reader) (name string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	name = shard(int(id[len(id)-1])%shards) + "/" + id.String() + partSuffix
	t.keepSpool(name, true)
	defer func() {
		if err != nil {
			t.keepSpool(name, false)
		}
	}()
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, t.cfg.FileMode)
	if err != nil {
		return "", t.wrap("spool", name, err)
	}
	var to io.Writer = struct{ io.Writer }{f}
	if !t.cfg.NoSync {
		to = &earlyWriter{file: f}
	}
	buf := spoolBuffers.Get().(*[spoolBuffer]byte)
	defer spoolBuffers.Put(buf)
	// The wrappers hide methods by which the copy would bypass the buffer.
	_, err = io.CopyBuffer(to, struct{ io.Reader }{contextReader{ctx, r}}, buf[:])
	if err := errors.Join(err, f.Close()); err != nil {
		return "", t.wrap("spool", name, errors.Join(err, t.root.Remove(name)))
	}
	return name, nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Claim stages a spooled stream under its key. After an error the spool is
// still there.
func (t *Tree) Claim(ctx context.Context, spool string, key storage.BlobKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := stagedPath(key)
	t.hold(key, nil)
	if err := t.root.Rename(spool, name); err != nil {
		t.forget(key)
		return t.wrap("claim "+spool+" as", name, err)
	}
	f, err := t.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		err = errors.Join(err, t.root.Rename(name, spool))
		t.forget(key)
		return t.wrap("claim", name, err)
	}
	t.hold(key, f)
	t.keepSpool(spool, false)
	return nil
}

// Drop removes a spooled stream that nobody claims, durably with the next
// Settle.
func (t *Tree) Drop(ctx context.Context, spool string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer t.keepSpool(spool, false)
	err := t.root.Remove(spool)
	t.note(path.Dir(spool), "")
	return t.wrap("drop", spool, err)
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
