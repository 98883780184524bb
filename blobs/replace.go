package blobs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/storage"
)

// ReplaceSidecar makes the sidecar of a blob anew, of lines. The directory was
// prepared. It is durable with the next Settle. Until then, with whole, it holds all
// lines or is as it was, whatever happens; without, which spares a sync, a power cut may
// leave any part of it. An error of lines ends it. Other errors: ErrPermission,
// ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) ReplaceSidecar(ctx context.Context, blob *storage.BlobRow, lines iter.Seq2[storage.SidecarLine, error], whole bool) error {
	if err := errors.Join(ctx.Err(), checkPath(blob.Path)); err != nil {
		return err
	}
	name := blob.Path + metaSuffix
	id, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	// What a crash leaves of it goes like a stream that nobody has claimed.
	temp := shard(int(id[0])%shards) + "/" + storage.UUID(id).String() + partSuffix
	t.keepSpool(temp, true)
	defer t.keepSpool(temp, false)
	if err := t.writeLines(temp, blob, lines, whole); err != nil {
		return err
	}
	if err := t.root.Rename(temp, name); err != nil {
		return t.wrap("replace", name, errors.Join(err, t.root.Remove(temp)))
	}
	t.note(path.Dir(temp), "")
	t.note(path.Dir(name), name)
	return nil
}

// writeLines writes a file of lines and, with durable, makes its bytes so. After an
// error it is not there.
func (t *Tree) writeLines(name string, blob *storage.BlobRow, lines iter.Seq2[storage.SidecarLine, error], durable bool) (err error) {
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, t.cfg.FileMode)
	if err != nil {
		return t.wrap("create", name, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, t.root.Remove(name))
		}
	}()
	w := bufio.NewWriter(f)
	var data bytes.Buffer
	for line, err := range lines {
		if err != nil {
			return err
		}
		data.Reset()
		if err := encodeLine(&data, blob, &line); err != nil {
			return t.wrap("encode line of", blob.Path+metaSuffix, err)
		}
		if _, err := w.Write(data.Bytes()); err != nil {
			return t.wrap("write", name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return t.wrap("write", name, err)
	}
	if t.cfg.NoSync || !durable {
		return nil
	}
	return t.wrap("sync", name, f.Sync())
}

// Link gives the file at a path a second one, whose directory was prepared and where
// nothing is, durable with the next Settle. Where there are no hard links it is a
// copy. Errors: ErrNotFound, ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Link(ctx context.Context, from, to string) error {
	if err := errors.Join(ctx.Err(), checkPath(from), checkPath(to)); err != nil {
		return err
	}
	err := t.root.Link(from, to)
	if noLinks(err) {
		err = t.copy(ctx, from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: file %s in %s: %w", storage.ErrNotFound, from, t.root.Name(), err)
	}
	if err == nil {
		t.note(path.Dir(to), "")
	}
	return t.wrap("link "+from+" as", to, err)
}

func (t *Tree) copy(ctx context.Context, from, to string) (err error) {
	source, _, err := t.openRegular(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	f, err := t.root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, t.cfg.FileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, contextReader{ctx, source})
	if err == nil && !t.cfg.NoSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, t.root.Remove(to))
	}
	return nil
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
