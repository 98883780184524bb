package boltindex

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Add adds a reference, durably, and returns the blob's row as it stands then.
// A blob that the index has gains one in its refcount and keeps its row; a new
// one is inserted if add.Staged, and is ErrNotFound if not. An error means
// that nothing changed, except for ErrInDoubt; the context is heeded until the
// transaction starts. Other errors: ErrDiskSpace, ErrIO, ErrCorrupted, or ctx's.
func (x *Index) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	row, err := encodeRef(&add.Ref)
	if err != nil {
		return storage.BlobRow{}, fmt.Errorf("reference %s: %w", add.Ref.UUID, err)
	}
	var blob storage.BlobRow
	o := &op{do: func(t *txn) (err error) {
		blob, err = t.add(add, row)
		return err
	}}
	if add.Staged {
		o.staged = add.Ref.Blob
	}
	err = x.commit(ctx, o)
	return blob, err
}

// add adds a reference whose row is encoded.
func (t *txn) add(add *storage.Addition, row []byte) (storage.BlobRow, error) {
	ref := &add.Ref
	blob, err := t.lookup(ref.Blob)
	switch {
	case err != nil:
		return blob, err
	case blob.Key == "" && !add.Staged:
		return blob, fmt.Errorf("%w: blob %s", storage.ErrNotFound, ref.Blob)
	case blob.Key == "":
		blob = add.Blob
		blob.Refs, blob.Ended = 0, 0
		t.delta.Blobs++
		t.delta.PhysicalBytes += blob.Size
	}
	blob.Refs++
	t.delta.CountRef(&ref.Metadata, blob.Size, 1)
	if err := t.putBlob(&blob); err != nil {
		return blob, err
	}
	if err := t.put(bucketRefs, ref.UUID[:], row); err != nil {
		return blob, err
	}
	for m := range memberships(blob.ListedDigest(ref.UUID), ref) {
		if err := t.put(m.bucket, m.key(ref.UUID), nil); err != nil {
			return blob, err
		}
	}
	if err := t.use(&ref.Metadata, blob.Size, 1); err != nil {
		return blob, err
	}
	return blob, t.owe(&storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob})
}

// lookup is a blob's row, of an empty key where there is none.
func (r *rows) lookup(key storage.BlobKey) (storage.BlobRow, error) {
	row := r.get(bucketBlobs, []byte(key))
	if row == nil {
		return storage.BlobRow{}, nil
	}
	return decodeBlob(key, row)
}
