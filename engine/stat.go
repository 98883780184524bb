package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Entry is what a store knows of one reference and its blob.
type Entry struct {
	Reference  storage.StorageReference
	Type       string
	MimeType   string
	Metadata   storage.MediaMetadata
	Path       string // of the blob, relative to the base directory
	Size       int64  // bytes
	Digest     storage.Digest
	Refs       int64     // references that share the blob, this one included
	AddedAt    time.Time // of the Store call that made the reference, to 256 ns
	StoredAt   time.Time // when the bytes were first stored
	AccessedAt time.Time // when the blob was last read, to the hour; zero: never
	ExpiresAt  time.Time // when the reference may be ended; zero: never
	Count      int64     // how many calls of Delete end the reference
}

func entry(hash string, ref *storage.RefRow, blob *storage.BlobRow) (Entry, error) {
	id, err := storage.ParseID(hash + "-" + ref.UUID.String())
	if err != nil {
		return Entry{}, fmt.Errorf("%w: blob %s: path %q has no name of a blob", storage.ErrCorrupted, blob.Key, blob.Path)
	}
	return Entry{
		Reference: *reference(id, ref, blob), Type: ref.Type, MimeType: ref.MimeType, Metadata: ref.Metadata,
		Path: blob.Path, Size: blob.Size, Digest: blob.Digest, Refs: blob.Refs,
		AddedAt: ref.UUID.Time(), StoredAt: blob.CreatedAt, AccessedAt: blob.AccessedAt,
		ExpiresAt: ref.ExpiresAt, Count: max(1, ref.Count),
	}, nil
}

// Stat tells what the index knows of a reference, without a look at its file.
// Errors: ErrInvalidRef, ErrNotFound, ErrCorrupted, ErrClosed, or ctx's.
func (f *FileStore) Stat(ctx context.Context, ref *storage.StorageReference) (Entry, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer leave()
	id, err := parseRef(ref)
	if err != nil {
		return Entry{}, fmt.Errorf("stat in %s: %w", s.cfg.BaseDir, err)
	}
	row, blob, err := s.index.Ref(ctx, id)
	if err != nil {
		return Entry{}, fmt.Errorf("stat in %s: reference %s: %w", s.cfg.BaseDir, id, err)
	}
	return entry(blob.NameHash(), &row, &blob)
}

// Stats are the totals of a store, and how long its calls took.
type Stats struct {
	References    int64
	Blobs         int64
	LogicalBytes  int64 // sum of the sizes of all references
	PhysicalBytes int64 // sum of the sizes of all blobs
	SavedBytes    int64 // what sharing saved: the difference of the two
	IndexBytes    int64 // in use by the index
	Healed        int64 // files that were missing or cut short and came back, since the opening
	Latencies     Latencies
}

// Stats reads the totals, which the index keeps. Errors: ErrCorrupted,
// ErrClosed, or ctx's.
func (f *FileStore) Stats(ctx context.Context) (Stats, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Stats{}, err
	}
	defer leave()
	c, err := s.index.Counters(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("stats of %s: %w", s.cfg.BaseDir, err)
	}
	size, err := s.index.Size(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("stats of %s: %w", s.cfg.BaseDir, err)
	}
	return Stats{
		References: c.Refs, Blobs: c.Blobs, LogicalBytes: c.LogicalBytes, PhysicalBytes: c.PhysicalBytes,
		SavedBytes: c.LogicalBytes - c.PhysicalBytes, IndexBytes: size, Healed: s.watch.healed.Load(),
		Latencies: s.watch.latencies(),
	}, nil
}
