package engine

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// BlobEntry is what a store knows of one blob.
type BlobEntry struct {
	Path       string         // relative to the base directory, forward slashes
	Size       int64          // bytes
	Digest     storage.Digest // zero: not known
	Shared     bool           // the one blob that has these bytes for all who store them with dedup
	MimeType   string         // of the first reference
	Refs       int64          // references
	StoredAt   time.Time
	AccessedAt time.Time // when it was last read, to the hour; zero: never
}

// blobPage is how many blobs Blobs reads at a time.
const blobPage = 256

// Blobs lists blobs in an order of the index's own. What is stored or deleted
// meanwhile may or may not be shown; every other blob is shown once. It holds no lock
// and no transaction while the caller works. An error ends the list: ErrCorrupted,
// ErrClosed, or ctx's.
func (f *FileStore) Blobs(ctx context.Context) iter.Seq2[BlobEntry, error] {
	return func(yield func(BlobEntry, error) bool) {
		var after storage.BlobKey
		for {
			page, err := f.blobPage(ctx, after)
			if err != nil {
				yield(BlobEntry{}, err)
				return
			}
			for i := range page {
				b := &page[i]
				_, shared := b.Key.Digest()
				if !yield(BlobEntry{
					Path: b.Path, Size: b.Size, Digest: b.Digest, Shared: shared, MimeType: b.MimeType,
					Refs: b.Refs, StoredAt: b.CreatedAt, AccessedAt: b.AccessedAt,
				}, nil) {
					return
				}
				after = b.Key
			}
			if len(page) < blobPage {
				return
			}
		}
	}
}

func (f *FileStore) blobPage(ctx context.Context, after storage.BlobKey) ([]storage.BlobRow, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	page, err := s.index.Blobs(ctx, after, blobPage)
	if err != nil {
		return nil, fmt.Errorf("list blobs of %s: %w", s.cfg.BaseDir, err)
	}
	return page, nil
}
