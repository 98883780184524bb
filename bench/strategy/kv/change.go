package kv

import (
	"context"
	"fmt"
	"time"

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
		blob.Refs, blob.Ended = 0, 0
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
	for _, m := range memberships(blob.ListedDigest(ref.UUID), ref) {
		if err := c.Put(m.table, m.key(ref.UUID), []byte{}); err != nil {
			return blob, err
		}
	}
	if err := c.use(&ref.Metadata, blob.Size, 1); err != nil {
		return blob, err
	}
	return blob, c.owe(&storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob})
}

// owe records what a sidecar is owed.
func (c *change) owe(m *storage.Mirror) error { return c.Put(Mirrors, m.Key(), []byte(m.Blob)) }

// Remove ends a reference; see engine.Index.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	return x.end(ctx, id, func(c *change, ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
		if ref.Count > 1 {
			ref.Count--
			err := c.rewrite(ref, ref)
			return storage.Removal{Found: true, Counted: true, Ref: *ref, Blob: *blob}, err
		}
		return c.remove(ref, blob)
	})
}

// End ends a reference that is due; see engine.Index.
func (x *Index) End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	return x.end(ctx, id, func(c *change, ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
		if !due.IsZero() && (ref.ExpiresAt.IsZero() || ref.ExpiresAt.After(due)) {
			return storage.Removal{}, nil
		}
		return c.remove(ref, blob)
	})
}

func (x *Index) end(ctx context.Context, id storage.ID, do func(*change, *storage.RefRow, *storage.BlobRow) (storage.Removal, error)) (storage.Removal, error) {
	var removal storage.Removal
	err := x.change(ctx, func(c *change) error {
		removal = storage.Removal{}
		ref, blob, found, err := readRef(c, id)
		if err != nil || !found {
			return err
		}
		removal, err = do(c, &ref, &blob)
		return err
	})
	return removal, x.wrap(err)
}

func (c *change) remove(ref *storage.RefRow, blob *storage.BlobRow) (storage.Removal, error) {
	if blob.Refs < 1 {
		return storage.Removal{}, fmt.Errorf("%w: blob %s: refcount %d, yet reference %s names it",
			storage.ErrCorrupted, blob.Key, blob.Refs, ref.UUID)
	}
	if err := c.Delete(Refs, ref.UUID[:]); err != nil {
		return storage.Removal{}, err
	}
	for _, m := range memberships(blob.ListedDigest(ref.UUID), ref) {
		if err := c.Delete(m.table, m.key(ref.UUID)); err != nil {
			return storage.Removal{}, err
		}
	}
	if err := c.use(&ref.Metadata, blob.Size, -1); err != nil {
		return storage.Removal{}, err
	}
	blob.Refs--
	c.delta.CountRef(&ref.Metadata, blob.Size, -1)
	if blob.Refs == 0 {
		c.delta.Blobs--
		c.delta.PhysicalBytes -= blob.Size
		if err := c.deleteBlob(blob.Key); err != nil {
			return storage.Removal{}, err
		}
		return storage.Removal{Found: true, Last: true, Ref: *ref, Blob: *blob}, c.Put(Unlinks, []byte(blob.Path), []byte{})
	}
	blob.Ended++
	if err := c.putBlob(blob); err != nil {
		return storage.Removal{}, err
	}
	return storage.Removal{Found: true, Ref: *ref, Blob: *blob}, c.owe(&storage.Mirror{UUID: ref.UUID, Deleted: true, Blob: blob.Key})
}

// maxDebtPage bounds what one transaction of Owe or Settle changes of each kind, as in
// boltindex.
const maxDebtPage = 1024

// Owe adds to the debt; see engine.Index.
func (x *Index) Owe(ctx context.Context, debt storage.Debt) error {
	return x.inPages(ctx, debt, (*change).oweAll)
}

// Settle drops debt that has been paid; see engine.Index.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	return x.inPages(ctx, paid, (*change).settle)
}

// inPages makes a change for all of a debt, some of it at a time.
func (x *Index) inPages(ctx context.Context, debt storage.Debt, do func(*change, *storage.Debt) error) error {
	for len(debt.Mirrors) > 0 || len(debt.Unlinks) > 0 {
		m, u := min(len(debt.Mirrors), maxDebtPage), min(len(debt.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: debt.Mirrors[:m], Unlinks: debt.Unlinks[:u]}
		if err := x.change(ctx, func(c *change) error { return do(c, &page) }); err != nil {
			return x.wrap(err)
		}
		debt.Mirrors, debt.Unlinks = debt.Mirrors[m:], debt.Unlinks[u:]
	}
	return ctx.Err()
}

func (c *change) oweAll(debt *storage.Debt) error {
	for i := range debt.Mirrors {
		if err := c.owe(&debt.Mirrors[i]); err != nil {
			return err
		}
	}
	for _, u := range debt.Unlinks {
		if err := c.Put(Unlinks, []byte(u.Path), []byte{}); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) settle(paid *storage.Debt) error {
	for i := range paid.Mirrors {
		if err := c.Delete(Mirrors, paid.Mirrors[i].Key()); err != nil {
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
