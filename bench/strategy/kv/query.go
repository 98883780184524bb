package kv

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

func (x *Index) view(ctx context.Context, fn func(Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return x.wrap(x.store.View(fn))
}

// Blob is a blob's row; see engine.Index.
func (x *Index) Blob(ctx context.Context, key storage.BlobKey) (storage.BlobRow, error) {
	var blob storage.BlobRow
	err := x.view(ctx, func(r Reader) error {
		var found bool
		var err error
		if blob, found, err = readBlob(r, key); err == nil && !found {
			err = fmt.Errorf("%w: blob %s", storage.ErrNotFound, key)
		}
		return err
	})
	return blob, err
}

func readBlob(r Reader, key storage.BlobKey) (storage.BlobRow, bool, error) {
	row, found, err := r.Get(Blobs, []byte(key))
	if err != nil || !found {
		return storage.BlobRow{}, false, err
	}
	blob, err := DecodeBlob(key, row)
	return blob, err == nil, err
}

// Ref is a reference and its blob; see engine.Index.
func (x *Index) Ref(ctx context.Context, id storage.ID) (storage.RefRow, storage.BlobRow, error) {
	var ref storage.RefRow
	var blob storage.BlobRow
	err := x.view(ctx, func(r Reader) error {
		var found bool
		var err error
		if ref, blob, found, err = readRef(r, id); err == nil && !found {
			err = storage.ErrNotFound
		}
		return err
	})
	return ref, blob, err
}

func readRef(r Reader, id storage.ID) (ref storage.RefRow, blob storage.BlobRow, found bool, err error) {
	row, found, err := r.Get(Refs, id.UUID[:])
	if err != nil || !found {
		return ref, blob, false, err
	}
	ref, blob, err = readPair(r, id.UUID, row)
	return ref, blob, err == nil && id.String()[:6] == blob.NameHash(), err
}

// readPair decodes a reference's row and reads the blob that it names.
func readPair(r Reader, id storage.UUID, row []byte) (storage.RefRow, storage.BlobRow, error) {
	ref, err := decodeRef(id, row)
	if err != nil {
		return ref, storage.BlobRow{}, err
	}
	blob, found, err := readBlob(r, ref.Blob)
	if err == nil && !found {
		err = fmt.Errorf("%w: reference %s names blob %s, which has no row", storage.ErrCorrupted, id, ref.Blob)
	}
	return ref, blob, err
}

// Counters are the totals; see engine.Index.
func (x *Index) Counters(ctx context.Context) (storage.Counters, error) {
	var totals storage.Counters
	err := x.view(ctx, func(r Reader) (err error) {
		totals, err = allTotals(r)
		return err
	})
	return totals, err
}

func allTotals(r Reader) (totals storage.Counters, err error) {
	for row, err := range r.From(Totals, nil) {
		if err != nil {
			return totals, err
		}
		part, err := decodeTotals(row.Value)
		if err != nil {
			return totals, err
		}
		totals = totals.Plus(part)
	}
	return totals, nil
}

// Blobs is a page of blobs; see engine.Index.
func (x *Index) Blobs(ctx context.Context, after storage.BlobKey, limit int) ([]storage.BlobRow, error) {
	var page []storage.BlobRow
	err := x.view(ctx, func(r Reader) error {
		for row, err := range r.From(Blobs, []byte(after)) {
			if err != nil {
				return err
			}
			if string(row.Key) == string(after) {
				continue
			}
			if len(page) == limit {
				return nil
			}
			blob, err := DecodeBlob(storage.BlobKey(row.Key), row.Value)
			if err != nil {
				return err
			}
			page = append(page, blob)
		}
		return nil
	})
	return page, err
}

// Debt is what changes owe to the tree; see engine.Index.
func (x *Index) Debt(ctx context.Context) (storage.Debt, error) {
	var debt storage.Debt
	err := x.view(ctx, func(r Reader) error {
		for row, err := range r.From(Mirrors, nil) {
			if err != nil {
				return err
			}
			m, err := storage.ParseMirror(row.Key, storage.BlobKey(row.Value))
			if err != nil {
				return err
			}
			debt.Mirrors = append(debt.Mirrors, m)
		}
		for row, err := range r.From(Unlinks, nil) {
			if err != nil {
				return err
			}
			debt.Unlinks = append(debt.Unlinks, storage.Unlink{Path: string(row.Key)})
		}
		return nil
	})
	return debt, err
}
