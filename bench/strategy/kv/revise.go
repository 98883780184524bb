package kv

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Revise changes policy, expiry and count of a reference; see engine.Index.
func (x *Index) Revise(ctx context.Context, id storage.ID, revise func(ref *storage.RefRow) bool) (storage.RefPair, error) {
	var pair storage.RefPair
	err := x.change(ctx, func(c *change) error {
		ref, blob, found, err := readRef(c, id)
		if err == nil && !found {
			err = fmt.Errorf("%w: reference %s", storage.ErrNotFound, id)
		}
		if err != nil {
			return err
		}
		before := ref
		if revise(&ref) {
			err = c.rewrite(&before, &ref)
		}
		pair = storage.RefPair{Ref: ref, Blob: blob}
		return err
	})
	return pair, x.wrap(err)
}

// rewrite puts a reference's row in the place of another of its own.
func (c *change) rewrite(before, ref *storage.RefRow) error {
	ref.Revision++
	if !before.ExpiresAt.Equal(ref.ExpiresAt) {
		if m := expiryList(before.ExpiresAt); !before.ExpiresAt.IsZero() {
			if err := c.Delete(m.table, m.key(ref.UUID)); err != nil {
				return err
			}
		}
		if m := expiryList(ref.ExpiresAt); !ref.ExpiresAt.IsZero() {
			if err := c.Put(m.table, m.key(ref.UUID), []byte{}); err != nil {
				return err
			}
		}
	}
	if err := c.Put(Refs, ref.UUID[:], encodeRef(ref)); err != nil {
		return err
	}
	return c.owe(&storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob})
}

// Move gives a blob another path; see engine.Index.
func (x *Index) Move(ctx context.Context, key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error) {
	var blob storage.BlobRow
	err := x.change(ctx, func(c *change) (err error) {
		blob, err = c.move(key, path, mode)
		return err
	})
	return blob, x.wrap(err)
}

func (c *change) move(key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error) {
	blob, found, err := readBlob(c, key)
	if err == nil && !found {
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
	if err := c.Delete(Unlinks, []byte(path)); err != nil {
		return blob, err
	}
	if err := c.Put(Unlinks, []byte(before.Path), []byte{}); err != nil {
		return blob, err
	}
	if err := c.owe(&owed); err != nil {
		return blob, err
	}
	if old, named := before.Founder(); named && old != owed.UUID {
		if err := c.relist(old, &before, &blob); err != nil {
			return blob, err
		}
	}
	if err := c.relist(owed.UUID, &before, &blob); err != nil {
		return blob, err
	}
	return blob, c.putBlob(&blob)
}

// relist lists a reference, if there is one, by its digest as the new path of its
// blob asks for.
func (c *change) relist(ref storage.UUID, before, after *storage.BlobRow) error {
	was, is := before.ListedDigest(ref), after.ListedDigest(ref)
	if _, found, err := c.Get(Refs, ref[:]); err != nil || !found || was == is {
		return err
	}
	if !was.IsZero() {
		if err := c.Delete(ByDigest, membership{ByDigest, string(was[:])}.key(ref)); err != nil {
			return err
		}
	}
	if is.IsZero() {
		return nil
	}
	return c.Put(ByDigest, membership{ByDigest, string(is[:])}.key(ref), []byte{})
}
