package boltindex

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Revise changes policy, expiry and count of a reference, durably, if revise, which
// may run several times and calls nothing, says that it changed them in its row,
// and raises the row's revision. Errors: ErrNotFound, ErrDiskSpace, ErrIO,
// ErrInDoubt, ErrCorrupted, or ctx's.
func (x *Index) Revise(ctx context.Context, id storage.ID, revise func(ref *storage.RefRow) bool) (storage.RefPair, error) {
	var pair storage.RefPair
	err := x.commit(ctx, &op{do: func(t *txn) error {
		ref, blob, found, err := t.readRef(id)
		if err == nil && !found {
			err = fmt.Errorf("%w: reference %s", storage.ErrNotFound, id)
		}
		if err != nil {
			return err
		}
		before := ref
		if revise(&ref) {
			err = t.rewrite(&before, &ref)
		}
		pair = storage.RefPair{Ref: ref, Blob: blob}
		return err
	}})
	return pair, err
}

// rewrite puts a reference's row in the place of another of its own.
func (t *txn) rewrite(before, ref *storage.RefRow) error {
	ref.Revision++
	row, err := encodeRef(ref)
	if err != nil {
		return fmt.Errorf("reference %s: %w", ref.UUID, err)
	}
	if !before.ExpiresAt.Equal(ref.ExpiresAt) {
		if m := (membership{bucketByExpiry, string(expiryKey(before.ExpiresAt))}); !before.ExpiresAt.IsZero() {
			t.delete(m.bucket, m.key(ref.UUID))
		}
		if m := (membership{bucketByExpiry, string(expiryKey(ref.ExpiresAt))}); !ref.ExpiresAt.IsZero() {
			if err := t.put(m.bucket, m.key(ref.UUID), nil); err != nil {
				return err
			}
		}
	}
	if err := t.put(bucketRefs, ref.UUID[:], row); err != nil {
		return err
	}
	return t.owe(&storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob})
}

// Move gives a blob another path, durably, and the organization mode of that. The
// old path becomes an unlink to be done, the new one is none any more, and the whole
// sidecar is owed. Errors: ErrNotFound, ErrConflict for the path that it has,
// ErrDiskSpace, ErrIO, ErrInDoubt, ErrCorrupted, or ctx's.
func (x *Index) Move(ctx context.Context, key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error) {
	var blob storage.BlobRow
	err := x.commit(ctx, &op{do: func(t *txn) (err error) {
		blob, err = t.move(key, path, mode)
		return err
	}})
	return blob, err
}

func (t *txn) move(key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error) {
	blob, err := t.lookup(key)
	if err == nil && blob.Key == "" {
		err = fmt.Errorf("%w: blob %s", storage.ErrNotFound, key)
	}
	if err != nil {
		return blob, err
	}
	if path == blob.Path {
		return blob, fmt.Errorf("%w: blob %s has the path %q already", storage.ErrConflict, key, path)
	}
	before := blob
	blob.Path, blob.Organization, blob.Ended = path, mode, 0
	owed, named := storage.WholeMirror(&blob)
	if !named {
		return blob, fmt.Errorf("%w: blob %s: path %q is not named after a reference", storage.ErrInvalidRef, key, path)
	}
	t.delete(bucketUnlinks, []byte(path))
	if err := t.put(bucketUnlinks, []byte(before.Path), nil); err != nil {
		return blob, err
	}
	if err := t.owe(&owed); err != nil {
		return blob, err
	}
	if old, named := before.Founder(); named {
		if err := t.relist(old, &before, &blob); err != nil {
			return blob, err
		}
	}
	if err := t.relist(owed.UUID, &before, &blob); err != nil {
		return blob, err
	}
	return blob, t.putBlob(&blob)
}

// relist lists a reference, if there is one, by its digest as the new path of its
// blob asks for.
func (t *txn) relist(ref storage.UUID, before, after *storage.BlobRow) error {
	if t.get(bucketRefs, ref[:]) == nil {
		return nil
	}
	if d := before.ListedDigest(ref); !d.IsZero() {
		t.delete(bucketByDigest, membership{bucketByDigest, string(d[:])}.key(ref))
	}
	if d := after.ListedDigest(ref); !d.IsZero() {
		return t.put(bucketByDigest, membership{bucketByDigest, string(d[:])}.key(ref), nil)
	}
	return nil
}
