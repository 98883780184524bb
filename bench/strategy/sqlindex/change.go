package sqlindex

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// change runs fn in a transaction, after the times of access that wait. An error
// of fn leaves nothing.
func (x *Index) change(ctx context.Context, fn func() error) error {
	if err := x.doubt.Err(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	if err := x.writer.exec(sqlBegin); err != nil {
		return err
	}
	touched := x.touches.Take()
	var err error
	for key, at := range touched {
		err = errors.Join(err, x.writer.exec(sqlTouch, []byte(key), toMicro(at)))
	}
	if err == nil {
		err = fn()
	}
	if err != nil {
		x.touches.PutBack(touched)
		return errors.Join(err, x.writer.exec(sqlRollback))
	}
	if err := x.writer.exec(sqlCommit); err != nil {
		return x.doubt.Raise(err)
	}
	return nil
}

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
	row, err := refArgs(&add.Ref)
	if err != nil {
		return storage.BlobRow{}, x.wrap(err)
	}
	var blob storage.BlobRow
	err = x.change(ctx, func() (err error) {
		blob, err = x.add(add, row)
		return err
	})
	return blob, x.wrap(err)
}

func (x *Index) add(add *storage.Addition, row []any) (storage.BlobRow, error) {
	var delta storage.Counters
	blob, err := x.count(add.Ref.Blob, 1, 0)
	switch {
	case errors.Is(err, sql.ErrNoRows) && !add.Staged:
		return blob, fmt.Errorf("%w: blob %s", storage.ErrNotFound, add.Ref.Blob)
	case errors.Is(err, sql.ErrNoRows):
		blob = add.Blob
		blob.Refs, blob.Ended = 1, 0
		delta.Blobs, delta.PhysicalBytes = 1, blob.Size
		err = x.writer.exec(sqlInsertBlob, blobArgs(&blob)...)
	}
	if err != nil {
		return blob, err
	}
	delta.CountRef(&add.Ref.Metadata, blob.Size, 1)
	if err := x.writer.exec(sqlInsertRef, row...); err != nil {
		return blob, err
	}
	if err := x.owe(&storage.Mirror{UUID: add.Ref.UUID, Revision: add.Ref.Revision, Blob: add.Ref.Blob}); err != nil {
		return blob, err
	}
	return blob, errors.Join(x.use(&add.Ref.Metadata, blob.Size, 1), x.total(delta))
}

// count changes a blob's refcount, and how many references have ended, and returns
// its row then, or ErrNoRows.
func (x *Index) count(key storage.BlobKey, by, ended int) (storage.BlobRow, error) {
	return scanBlob(x.writer.prepared[sqlCount].QueryRow([]byte(key), by, ended))
}

// owe records what a sidecar is owed.
func (x *Index) owe(m *storage.Mirror) error {
	return x.writer.exec(sqlInsertDebt, m.Key(), []byte(m.Blob))
}

// use counts n references like one with metadata m to a blob of a size.
func (x *Index) use(m *storage.MediaMetadata, size, n int64) error {
	for _, kind := range [...]storage.IDKind{storage.SessionIDs, storage.UserIDs} {
		id := kind.Of(m)
		if id == "" {
			continue
		}
		if err := x.writer.exec(sqlUse, kind, []byte(id), n, n*size); err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if err := x.writer.exec(sqlUnuse, kind, []byte(id)); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) total(delta storage.Counters) error {
	return x.writer.exec(sqlTotals, delta.Refs, delta.Blobs, delta.LogicalBytes, delta.PhysicalBytes,
		delta.NoConversation, delta.NoSession, delta.NoRun)
}

// Remove ends a reference; see engine.Index.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	return x.end(ctx, id, func(p *storage.RefPair) (storage.Removal, error) {
		if p.Ref.Count > 1 {
			p.Ref.Count--
			err := x.rewrite(&p.Ref)
			return storage.Removal{Found: true, Counted: true, Ref: p.Ref, Blob: p.Blob}, err
		}
		return x.remove(p)
	})
}

// End ends a reference that is due; see engine.Index.
func (x *Index) End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	return x.end(ctx, id, func(p *storage.RefPair) (storage.Removal, error) {
		if !due.IsZero() && (p.Ref.ExpiresAt.IsZero() || p.Ref.ExpiresAt.After(due)) {
			return storage.Removal{}, nil
		}
		return x.remove(p)
	})
}

func (x *Index) end(ctx context.Context, id storage.ID, do func(*storage.RefPair) (storage.Removal, error)) (storage.Removal, error) {
	var removal storage.Removal
	err := x.change(ctx, func() error {
		pair, found, err := x.readPair(id)
		if err == nil && found {
			removal, err = do(&pair)
		}
		return err
	})
	return removal, x.wrap(err)
}

// readPair reads a reference within a transaction.
func (x *Index) readPair(id storage.ID) (storage.RefPair, bool, error) {
	pair, err := scanPair(x.writer.prepared[sqlReadPair].QueryRow(id.UUID[:]))
	if errors.Is(err, sql.ErrNoRows) || err == nil && id.String()[:6] != pair.Blob.NameHash() {
		return storage.RefPair{}, false, nil
	}
	return pair, err == nil, err
}

func (x *Index) remove(p *storage.RefPair) (storage.Removal, error) {
	if err := x.writer.exec(sqlDeleteRef, p.Ref.UUID[:]); err != nil {
		return storage.Removal{}, err
	}
	blob := p.Blob
	blob.Refs--
	var delta storage.Counters
	delta.CountRef(&p.Ref.Metadata, blob.Size, -1)
	last := blob.Refs == 0
	var err error
	if last {
		delta.Blobs, delta.PhysicalBytes = -1, -blob.Size
		err = errors.Join(x.writer.exec(sqlDeleteBlob, []byte(blob.Key)), x.writer.exec(sqlOweUnlink, blob.Path))
	} else if blob, err = x.count(blob.Key, -1, 1); err == nil {
		err = x.owe(&storage.Mirror{UUID: p.Ref.UUID, Deleted: true, Blob: blob.Key})
	}
	if err == nil {
		err = x.use(&p.Ref.Metadata, blob.Size, -1)
	}
	if err != nil {
		return storage.Removal{}, err
	}
	return storage.Removal{Found: true, Last: last, Ref: p.Ref, Blob: blob}, x.total(delta)
}

// rewrite writes what may change of a reference's row.
func (x *Index) rewrite(ref *storage.RefRow) error {
	ref.Revision++
	err := x.writer.exec(sqlReviseRef, ref.UUID[:], ref.Metadata.Policy, expiry(ref.ExpiresAt), ref.Count, ref.Revision)
	return errors.Join(err, x.owe(&storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob}))
}

// Revise changes policy, expiry and count of a reference; see engine.Index.
func (x *Index) Revise(ctx context.Context, id storage.ID, revise func(ref *storage.RefRow) bool) (storage.RefPair, error) {
	var pair storage.RefPair
	err := x.change(ctx, func() error {
		var found bool
		var err error
		if pair, found, err = x.readPair(id); err == nil && !found {
			err = fmt.Errorf("%w: reference %s", storage.ErrNotFound, id)
		}
		if err == nil && revise(&pair.Ref) {
			err = x.rewrite(&pair.Ref)
		}
		return err
	})
	return pair, x.wrap(err)
}

// Move gives a blob another path; see engine.Index.
func (x *Index) Move(ctx context.Context, key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error) {
	var blob storage.BlobRow
	err := x.change(ctx, func() error {
		before, err := scanBlob(x.writer.prepared[sqlReadBlob].QueryRow([]byte(key)))
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: blob %s", storage.ErrNotFound, key)
		} else if err != nil {
			return err
		}
		if path == before.Path {
			return fmt.Errorf("%w: blob %s has the path %q already", storage.ErrConflict, key, path)
		}
		if blob, err = scanBlob(x.writer.prepared[sqlMove].QueryRow([]byte(key), path, string(mode))); err != nil {
			return err
		}
		owed, named := storage.WholeMirror(&blob)
		if !named {
			return fmt.Errorf("%w: blob %s: path %q is not named after a reference", storage.ErrInvalidRef, key, path)
		}
		return errors.Join(x.writer.exec(sqlPayUnlink, path), x.writer.exec(sqlOweUnlink, before.Path), x.owe(&owed))
	})
	return blob, x.wrap(err)
}

// maxDebtPage bounds what one transaction of Owe or Settle changes of each kind, as in
// boltindex.
const maxDebtPage = 1024

// Owe adds to the debt; see engine.Index.
func (x *Index) Owe(ctx context.Context, debt storage.Debt) error {
	return x.inPages(ctx, debt, x.oweAll)
}

// Settle drops debt that has been paid; see engine.Index.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	return x.inPages(ctx, paid, x.settle)
}

// inPages makes a change for all of a debt, some of it at a time.
func (x *Index) inPages(ctx context.Context, debt storage.Debt, do func(*storage.Debt) error) error {
	for len(debt.Mirrors) > 0 || len(debt.Unlinks) > 0 {
		m, u := min(len(debt.Mirrors), maxDebtPage), min(len(debt.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: debt.Mirrors[:m], Unlinks: debt.Unlinks[:u]}
		if err := x.change(ctx, func() error { return do(&page) }); err != nil {
			return x.wrap(err)
		}
		debt.Mirrors, debt.Unlinks = debt.Mirrors[m:], debt.Unlinks[u:]
	}
	return ctx.Err()
}

func (x *Index) oweAll(debt *storage.Debt) error {
	for i := range debt.Mirrors {
		if err := x.owe(&debt.Mirrors[i]); err != nil {
			return err
		}
	}
	for _, u := range debt.Unlinks {
		if err := x.writer.exec(sqlOweUnlink, u.Path); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) settle(paid *storage.Debt) error {
	for i := range paid.Mirrors {
		if err := x.writer.exec(sqlDeleteDebt, paid.Mirrors[i].Key()); err != nil {
			return err
		}
	}
	for _, u := range paid.Unlinks {
		if err := x.writer.exec(sqlPayUnlink, u.Path); err != nil {
			return err
		}
	}
	return nil
}
