package boltindex

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// wrap adds the identity of the index to an error of a read.
func (x *Index) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("index %s: %w", x.path, err)
}

// Blob is the row of a blob, or ErrNotFound. Other errors: ErrCorrupted, or
// ctx's.
func (x *Index) Blob(ctx context.Context, key storage.BlobKey) (storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return storage.BlobRow{}, err
	}
	row, err := x.row(bucketBlobs, []byte(key))
	if err == nil && row == nil {
		return storage.BlobRow{}, fmt.Errorf("%w: blob %s", storage.ErrNotFound, key)
	} else if err != nil {
		return storage.BlobRow{}, x.wrap(err)
	}
	blob, err := decodeBlob(key, row)
	return blob, x.wrap(err)
}

// Ref is a reference and its blob. An ID that no live reference has is
// ErrNotFound. Other errors: ErrCorrupted, or ctx's.
func (x *Index) Ref(ctx context.Context, id storage.ID) (storage.RefRow, storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return storage.RefRow{}, storage.BlobRow{}, err
	}
	ref, blob, found, err := x.ref(id)
	if err == nil && !found {
		err = storage.ErrNotFound
	}
	return ref, blob, err
}

func (x *Index) ref(id storage.ID) (ref storage.RefRow, blob storage.BlobRow, found bool, err error) {
	err = x.view(func(r *rows) (err error) {
		ref, blob, found, err = r.readRef(id)
		return err
	})
	return ref, blob, found, x.wrap(err)
}

func (r *rows) readRef(id storage.ID) (ref storage.RefRow, blob storage.BlobRow, found bool, err error) {
	row := r.get(bucketRefs, id.UUID[:])
	if row == nil {
		return ref, blob, false, nil
	}
	ref, blob, err = r.readPair(id.UUID, row)
	if err != nil {
		return ref, blob, false, err
	}
	return ref, blob, id.String()[:6] == blob.NameHash(), nil
}

// readPair decodes a reference's row and the blob that it names.
func (r *rows) readPair(id storage.UUID, row []byte) (storage.RefRow, storage.BlobRow, error) {
	ref, err := decodeRef(id, row)
	if err != nil {
		return ref, storage.BlobRow{}, err
	}
	blobRow := r.get(bucketBlobs, []byte(ref.Blob))
	if blobRow == nil {
		return ref, storage.BlobRow{}, fmt.Errorf("%w: reference %s names blob %s, which has no row", storage.ErrCorrupted, id, ref.Blob)
	}
	blob, err := decodeBlob(ref.Blob, blobRow)
	return ref, blob, err
}

// Counters are the totals as the index keeps them.
func (x *Index) Counters(ctx context.Context) (storage.Counters, error) {
	if err := ctx.Err(); err != nil {
		return storage.Counters{}, err
	}
	var c storage.Counters
	err := x.view(func(r *rows) (err error) {
		c, err = readCounters(r)
		return err
	})
	return c, x.wrap(err)
}

// Size is how many bytes of its file the index has in use, and those of its log.
func (x *Index) Size(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var size int64
	err := x.viewBolt(func(s *state) error { size = int64(s.end) * s.pages.size; return nil })
	x.writing.Lock()
	defer x.writing.Unlock()
	for _, s := range x.changes.segments {
		size += s.size
	}
	return size, x.wrap(err)
}

// Blobs is a page of up to limit blob rows in order of their keys, those after
// the key after; fewer mean that there are no more.
func (x *Index) Blobs(ctx context.Context, after storage.BlobKey, limit int) ([]storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var page []storage.BlobRow
	err := x.view(func(r *rows) error {
		for k, v := range r.from(bucketBlobs, []byte(after)) {
			if string(k) == string(after) {
				continue
			}
			if len(page) == limit {
				break
			}
			b, err := decodeBlob(storage.BlobKey(k), v)
			if err != nil {
				return err
			}
			page = append(page, b)
		}
		return nil
	})
	return page, x.wrap(err)
}

// Commits is how many records have been committed since the store was made.
func (x *Index) Commits() uint64 {
	x.writing.Lock()
	defer x.writing.Unlock()
	return x.changes.number
}
