package sqlindex

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

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
	blob, err := x.count(add.Ref.Blob, 1)
	switch {
	case errors.Is(err, sql.ErrNoRows) && !add.Staged:
		return blob, fmt.Errorf("%w: blob %s", storage.ErrNotFound, add.Ref.Blob)
	case errors.Is(err, sql.ErrNoRows):
		blob = add.Blob
		blob.Refs = 1
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
	if err := x.writer.exec(sqlInsertDebt, add.Ref.UUID[:], false, []byte(add.Ref.Blob)); err != nil {
		return blob, err
	}
	return blob, x.total(delta)
}

// count changes a blob's refcount and returns its row then, or ErrNoRows.
func (x *Index) count(key storage.BlobKey, by int) (storage.BlobRow, error) {
	return scanBlob(x.writer.prepared[sqlCount].QueryRow([]byte(key), by))
}

func (x *Index) total(delta storage.Counters) error {
	return x.writer.exec(sqlTotals, delta.Refs, delta.Blobs, delta.LogicalBytes, delta.PhysicalBytes,
		delta.NoConversation, delta.NoSession, delta.NoRun)
}

// Remove ends a reference; see engine.Index.
func (x *Index) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	var removal storage.Removal
	err := x.change(ctx, func() (err error) {
		removal, err = x.remove(id)
		return err
	})
	return removal, x.wrap(err)
}

func (x *Index) remove(id storage.ID) (storage.Removal, error) {
	pair, err := scanPair(x.writer.prepared[sqlReadPair].QueryRow(id.UUID[:]))
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && id.String()[:6] != pair.Blob.NameHash():
		return storage.Removal{}, nil
	case err != nil:
		return storage.Removal{}, err
	}
	if err := x.writer.exec(sqlDeleteRef, id.UUID[:]); err != nil {
		return storage.Removal{}, err
	}
	blob := pair.Blob
	blob.Refs--
	removal := storage.Removal{Found: true, Last: blob.Refs == 0, Blob: blob}
	var delta storage.Counters
	delta.CountRef(&pair.Ref.Metadata, blob.Size, -1)
	if removal.Last {
		delta.Blobs, delta.PhysicalBytes = -1, -blob.Size
		err = errors.Join(x.writer.exec(sqlDeleteBlob, []byte(blob.Key)), x.writer.exec(sqlOweUnlink, blob.Path))
	} else if _, err = x.count(blob.Key, -1); err == nil {
		err = x.writer.exec(sqlInsertDebt, id.UUID[:], true, []byte(blob.Key))
	}
	if err != nil {
		return storage.Removal{}, err
	}
	return removal, x.total(delta)
}

// maxDebtPage bounds what one transaction of Settle removes of each kind, as in
// boltindex.
const maxDebtPage = 1024

// Settle drops debt that has been paid; see engine.Index.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	for len(paid.Mirrors) > 0 || len(paid.Unlinks) > 0 {
		m, u := min(len(paid.Mirrors), maxDebtPage), min(len(paid.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: paid.Mirrors[:m], Unlinks: paid.Unlinks[:u]}
		if err := x.change(ctx, func() error { return x.settle(&page) }); err != nil {
			return x.wrap(err)
		}
		paid.Mirrors, paid.Unlinks = paid.Mirrors[m:], paid.Unlinks[u:]
	}
	return ctx.Err()
}

func (x *Index) settle(paid *storage.Debt) error {
	for i := range paid.Mirrors {
		if err := x.writer.exec(sqlDeleteDebt, paid.Mirrors[i].UUID[:], paid.Mirrors[i].Deleted); err != nil {
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
