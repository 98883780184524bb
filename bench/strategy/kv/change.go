package kv

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Add adds a reference; see engine.Index.
func (x *Index) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return storage.BlobRow{}, err
	}
	if add.Staged {
		if err := x.staged.Sync(add.Ref.Blob); err != nil {
			return storage.BlobRow{}, x.wrap(err)
		}
	}
	row := encodeRef(&add.Ref)
	var blob storage.BlobRow
	err := x.change(ctx, func(c *change) (err error) {
		blob, err = c.add(add, row)
		return err
	})
	return blob, x.wrap(err)
}

func (c *change) add(add *storage.Addition, row []byte) (storage.BlobRow, error) {
	ref := &add.Ref
	blob, found, err := readBlob(c, ref.Blob)
	switch {
	case err != nil:
		return blob, err
	case !found && !add.Staged:
		return blob, fmt.Errorf("%w: blob %s", storage.ErrNotFound, ref.Blob)
	case !found:
		blob = add.Blob
		blob.Refs = 0
		c.delta.Blobs++
		c.delta.PhysicalBytes += blob.Size
	}
	blob.Refs++
	c.delta.CountRef(&ref.Metadata, blob.Size, 1)
	if err := c.putBlob(&blob); err != nil {
		return blob, err
	}
	if err := c.Put(Refs, ref.UUID[:], row); err != nil {
		return blob, err
	}
	for _, m := range memberships(blob.ListedDigest(ref.UUID), &ref.Metadata) {
		if err := c.Put(m.table, m.key(ref.UUID), []byte{}); err != nil {
			return blob, err
		}
	}
	line := storage.Mirror{UUID: ref.UUID, Blob: ref.Blob}
	return blob, c.Put(Mirrors, mirrorKey(&line), []byte(line.Blob))
}

// Remove ends a reference; see engine.Index.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	var removal storage.Removal
	err := x.change(ctx, func(c *change) (err error) {
		removal, err = c.remove(id)
		return err
	})
	return removal, x.wrap(err)
}

func (c *change) remove(id storage.ID) (storage.Removal, error) {
	ref, blob, found, err := readRef(c, id)
	if err != nil || !found {
		return storage.Removal{}, err
	}
	if blob.Refs < 1 {
		return storage.Removal{}, fmt.Errorf("%w: blob %s: refcount %d, yet reference %s names it",
			storage.ErrCorrupted, blob.Key, blob.Refs, id.UUID)
	}
	if err := c.Delete(Refs, id.UUID[:]); err != nil {
		return storage.Removal{}, err
	}
	for _, m := range memberships(blob.ListedDigest(id.UUID), &ref.Metadata) {
		if err := c.Delete(m.table, m.key(id.UUID)); err != nil {
			return storage.Removal{}, err
		}
	}
	blob.Refs--
	c.delta.CountRef(&ref.Metadata, blob.Size, -1)
	if blob.Refs == 0 {
		c.delta.Blobs--
		c.delta.PhysicalBytes -= blob.Size
		if err := c.deleteBlob(blob.Key); err != nil {
			return storage.Removal{}, err
		}
		return storage.Removal{Found: true, Last: true, Blob: blob}, c.Put(Unlinks, []byte(blob.Path), []byte{})
	}
	if err := c.putBlob(&blob); err != nil {
		return storage.Removal{}, err
	}
	line := storage.Mirror{UUID: id.UUID, Deleted: true, Blob: blob.Key}
	return storage.Removal{Found: true, Blob: blob}, c.Put(Mirrors, mirrorKey(&line), []byte(line.Blob))
}

// maxDebtPage bounds what one transaction of Settle removes of each kind, as in
// boltindex.
const maxDebtPage = 1024

// Settle drops debt that has been paid; see engine.Index.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	for len(paid.Mirrors) > 0 || len(paid.Unlinks) > 0 {
		m, u := min(len(paid.Mirrors), maxDebtPage), min(len(paid.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: paid.Mirrors[:m], Unlinks: paid.Unlinks[:u]}
		if err := x.change(ctx, func(c *change) error { return c.settle(&page) }); err != nil {
			return x.wrap(err)
		}
		paid.Mirrors, paid.Unlinks = paid.Mirrors[m:], paid.Unlinks[u:]
	}
	return ctx.Err()
}

func (c *change) settle(paid *storage.Debt) error {
	for i := range paid.Mirrors {
		if err := c.Delete(Mirrors, mirrorKey(&paid.Mirrors[i])); err != nil {
			return err
		}
	}
	for _, u := range paid.Unlinks {
		if err := c.Delete(Unlinks, []byte(u.Path)); err != nil {
			return err
		}
	}
	return nil
}
