package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"

	"github.com/mediabolt/mediabolt/storage"
)

// MetaSuffix is what the name of a sidecar has behind that of its blob.
const MetaSuffix = metaSuffix

// EncodeSidecar is a whole sidecar of a blob: a line for each of its references,
// the first of which tells of the blob too. It says everything that rows do, but
// for the blob's path, its refcount and when it was last read.
func EncodeSidecar(blob *storage.BlobRow, refs []storage.RefRow) ([]byte, error) {
	var data bytes.Buffer
	for i := range refs {
		if err := encodeLine(&data, blob, &storage.SidecarLine{First: i == 0, Ref: &refs[i]}); err != nil {
			return nil, err
		}
	}
	return data.Bytes(), nil
}

// DecodeSidecar reads a whole sidecar. Lines that cannot be read are skipped and
// counted.
func DecodeSidecar(data []byte) storage.Sidecar { return decodeSidecar(data) }

// WriteSidecar makes the sidecar of a blob, whose directory was prepared, what
// EncodeSidecar says, durably with the next Settle. One that is so already is not
// touched unless again is set, as after a failed sync. A crash before may leave half of
// it: the caller knows to write it again. Errors: ErrPermission, ErrDiskSpace, ErrIO,
// or ctx's.
func (t *Tree) WriteSidecar(ctx context.Context, blob *storage.BlobRow, refs []storage.RefRow, again bool) error {
	if err := errors.Join(ctx.Err(), checkPath(blob.Path)); err != nil {
		return err
	}
	name := blob.Path + metaSuffix
	data, err := EncodeSidecar(blob, refs)
	if err != nil {
		return t.wrap("encode", name, err)
	}
	if old, err := t.root.ReadFile(name); err == nil && !again && bytes.Equal(old, data) {
		return nil
	}
	if err := t.root.WriteFile(name, data, t.cfg.FileMode); err != nil {
		return t.wrap("write", name, err)
	}
	t.note(path.Dir(name), name)
	return nil
}

// Keep has the next Settle make a name durable that an earlier process gave.
func (t *Tree) Keep(name string) { t.note(path.Dir(name), "") }

// Share gives an open file of another tree a name in this one, in place of what has
// it: the same file by a hard link where from, the absolute path of the file, is on
// this filesystem, or else a file that shares its blocks, where there is such a
// thing. shared is false where neither works, and where from leads to another file:
// nothing has changed then. The directory was prepared. It is durable with the next
// Settle. Errors: ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Share(ctx context.Context, from string, file *os.File, name string) (shared bool, err error) {
	if err := errors.Join(ctx.Err(), checkPath(name)); err != nil {
		return false, err
	}
	temp := shard(0) + "/" + rand.Text() + partSuffix
	shared, err = t.shareAs(from, file, temp)
	if err == nil && shared {
		err = t.root.Rename(temp, name)
	}
	// A rename onto another name of the same file leaves both.
	if e := t.root.Remove(temp); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if err != nil || !shared {
		return false, t.wrap("share", name, err)
	}
	t.note(path.Dir(name), "")
	return true, nil
}

// shareAs is Share under a name in staging.
func (t *Tree) shareAs(from string, file *os.File, temp string) (shared bool, err error) {
	want, err := file.Stat()
	if err != nil {
		return false, err
	}
	err = os.Link(from, path.Join(t.root.Name(), temp))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		// The path was followed by the system, which goes where links lead.
		got, err := t.root.Root.Lstat(temp)
		return err == nil && os.SameFile(want, got), err
	}
	if !noLinks(err) {
		return false, err
	}
	to, err := t.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, t.cfg.FileMode)
	if err != nil {
		return false, err
	}
	shared = clone(to, file)
	if shared && !t.cfg.NoSync {
		err = datasync(to)
	}
	return shared, errors.Join(err, to.Close())
}
