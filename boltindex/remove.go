package boltindex

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Remove ends a reference, durably. With the last reference of a blob the
// blob's row goes too, and its path is recorded as an unlink to be done. A
// reference that is not there, or whose blob's name does not begin with id's
// hash, changes nothing. Errors: ErrDiskSpace, ErrIO, ErrInDoubt, ErrCorrupted,
// or ctx's.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	// An ID that names nothing costs no commit. But what is read here may
	// be of a commit that is not durable yet.
	if _, _, found, err := x.ref(id); err != nil {
		return storage.Removal{}, err
	} else if !found {
		return storage.Removal{}, x.commit(ctx, &op{})
	}
	var removal storage.Removal
	err := x.commit(ctx, &op{shrinks: true, do: func(t *txn) (err error) {
		removal, err = t.remove(id)
		return err
	}})
	return removal, err
}

func (t *txn) remove(id storage.ID) (storage.Removal, error) {
	ref, blob, found, err := t.readRef(id)
	if err != nil || !found {
		return storage.Removal{}, err
	}
	if blob.Refs < 1 {
		return storage.Removal{}, fmt.Errorf("%w: blob %s: refcount %d, yet reference %s names it",
			storage.ErrCorrupted, blob.Key, blob.Refs, id.UUID)
	}
	blob.Refs--
	t.delta.CountRef(&ref.Metadata, blob.Size, -1)
	t.delete(bucketRefs, id.UUID[:])
	for m := range memberships(blob.ListedDigest(id.UUID), &ref.Metadata) {
		t.delete(m.bucket, m.key(id.UUID))
	}
	removal := storage.Removal{Found: true, Last: blob.Refs == 0, Blob: blob}
	if !removal.Last {
		line := storage.Mirror{UUID: id.UUID, Deleted: true, Blob: blob.Key}
		if err := t.put(bucketMirrors, mirrorKey(&line), []byte(line.Blob)); err != nil {
			return storage.Removal{}, err
		}
		return removal, t.putBlob(&blob)
	}
	t.delta.Blobs--
	t.delta.PhysicalBytes -= blob.Size
	t.delete(bucketBlobs, []byte(blob.Key))
	return removal, t.put(bucketUnlinks, []byte(blob.Path), nil)
}
