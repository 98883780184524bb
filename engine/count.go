package engine

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// SetCount makes a reference stand for n that are all alike, as in stores that
// count references to a file and do not tell them apart: n calls of Delete end it.
// References of a Store count one, and deleting one of them twice is one deletion;
// with a count each call counts. Errors: ErrInvalidRef, ErrNotFound, ErrInvalidQuery
// for an n below 1, ErrDiskSpace, ErrIO, ErrClosed, or ctx's.
func (f *FileStore) SetCount(ctx context.Context, ref *storage.StorageReference, n int64) error {
	_, err := f.revise(ctx, ref, "set count", func(row *storage.RefRow) error {
		if n < 1 {
			return fmt.Errorf("%w: a count of %d: want 1 or more", storage.ErrInvalidQuery, n)
		}
		row.Count = n
		return nil
	})
	return err
}

// revise changes a reference's row and has its sidecar told, if change, which may
// run several times, changes it without an error. doing is for messages.
func (f *FileStore) revise(ctx context.Context, ref *storage.StorageReference, doing string, change func(*storage.RefRow) error) (Entry, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer leave()
	defer s.watch.tellCommits()
	wrap := func(err error) error { return fmt.Errorf("%s in %s: %w", doing, s.cfg.BaseDir, err) }
	id, err := parseRef(ref)
	if err != nil {
		return Entry{}, wrap(err)
	}
	var refused error
	before := uint32(0)
	pair, err := s.index.Revise(ctx, id, func(row *storage.RefRow) bool {
		was := *row
		before = row.Revision
		if refused = change(row); refused != nil {
			*row = was
			return false
		}
		return was.Count != row.Count || was.Metadata.Policy != row.Metadata.Policy || !was.ExpiresAt.Equal(row.ExpiresAt)
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return Entry{}, wrap(fmt.Errorf("reference %s: %w", id, storage.Classify(err)))
	}
	if pair.Ref.Revision != before {
		s.mirror(context.WithoutCancel(ctx), &pair.Blob, &storage.SidecarLine{Ref: &pair.Ref})
	}
	return entry(pair.Blob.NameHash(), &pair.Ref, &pair.Blob)
}
