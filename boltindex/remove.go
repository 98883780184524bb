package boltindex

import (
	"context"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Remove ends a reference, durably. With the last reference of a blob the
// blob's row goes too, and its path is recorded as an unlink to be done. Of a
// reference that counts several, one is taken from the count. A reference that is
// not there, or whose blob's name does not begin with id's hash, changes nothing.
// Errors: ErrDiskSpace, ErrIO, ErrInDoubt, ErrCorrupted, or ctx's.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	return x.end(ctx, id, func(t *txn, ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
		if ref.Count > 1 {
			ref.Count--
			err := t.rewrite(ref, ref)
			return storage.Removal{Found: true, Counted: true, Ref: *ref, Blob: *blob}, err
		}
		return t.remove(ref, blob)
	})
}

// End is Remove for a reference that expires at a time or before, whatever its
// count; others stay. With the zero time it is for all.
func (x *Index) End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	return x.end(ctx, id, func(t *txn, ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
		if !due.IsZero() && (ref.ExpiresAt.IsZero() || ref.ExpiresAt.After(due)) {
			return storage.Removal{}, nil
		}
		return t.remove(ref, blob)
	})
}

func (x *Index) end(ctx context.Context, id storage.ID, do func(*txn, *storage.RefRow, *storage.BlobRow) (storage.Removal, error)) (storage.Removal, error) {
	// An ID that names nothing costs no commit. But what is read here may
	// be of a commit that is not durable yet.
	if _, _, found, err := x.ref(id); err != nil {
		return storage.Removal{}, err
	} else if !found {
		return storage.Removal{}, x.commit(ctx, &op{})
	}
	var removal storage.Removal
	err := x.commit(ctx, &op{shrinks: true, do: func(t *txn) error {
		removal = storage.Removal{}
		ref, blob, found, err := t.readRef(id)
		if err != nil || !found {
			return err
		}
		removal, err = do(t, &ref, &blob)
		return err
	}})
	return removal, err
}

func (t *txn) remove(ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
	if blob.Refs < 1 {
		return storage.Removal{}, fmt.Errorf("%w: blob %s: refcount %d, yet reference %s names it",
			storage.ErrCorrupted, blob.Key, blob.Refs, ref.UUID)
	}
	t.delete(bucketRefs, ref.UUID[:])
	for m := range memberships(blob.ListedDigest(ref.UUID), ref) {
		t.delete(m.bucket, m.key(ref.UUID))
	}
	if err := t.use(&ref.Metadata, blob.Size, -1); err != nil {
		return storage.Removal{}, err
	}
	blob.Refs--
	t.delta.CountRef(&ref.Metadata, blob.Size, -1)
	removal := storage.Removal{Found: true, Last: blob.Refs == 0, Ref: *ref}
	if !removal.Last {
		blob.Ended++
		removal.Blob = *blob
		if err := t.owe(&storage.Mirror{UUID: ref.UUID, Deleted: true, Blob: blob.Key}); err != nil {
			return storage.Removal{}, err
		}
		return removal, t.putBlob(blob)
	}
	removal.Blob = *blob
	t.delta.Blobs--
	t.delta.PhysicalBytes -= blob.Size
	t.delete(bucketBlobs, []byte(blob.Key))
	return removal, t.put(bucketUnlinks, []byte(blob.Path), nil)
}

// owe records what a sidecar is owed.
func (t *txn) owe(m *storage.Mirror) error { return t.put(bucketMirrors, m.Key(), []byte(m.Blob)) }
