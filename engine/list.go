package engine

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/mediabolt/mediabolt/storage"
)

// listPage is how many references List reads at a time.
const listPage = 256

// List lists references. It holds no lock and no transaction while the caller
// works, so what is stored or deleted meanwhile may or may not be shown; every
// other reference that matches is shown, once, as it was at some moment of the
// list. An error ends the list: ErrInvalidQuery, ErrCorrupted, ErrClosed, or
// ctx's.
func (f *FileStore) List(ctx context.Context, q Query) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for p, err := range f.pairs(ctx, &q) {
			var e Entry
			if err == nil {
				e, err = entry(p.Blob.NameHash(), &p.Ref, &p.Blob)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// pairs is List with rows.
func (f *FileStore) pairs(ctx context.Context, q *Query) iter.Seq2[storage.RefPair, error] {
	return func(yield func(storage.RefPair, error) bool) {
		l, err := newListing(q)
		if err != nil {
			yield(storage.RefPair{}, fmt.Errorf("list %s: %w", f.dir(), err))
			return
		}
		for more := !l.empty; more; {
			var page []storage.RefPair
			page, more, err = f.listPage(ctx, l)
			if err != nil {
				yield(storage.RefPair{}, err)
				return
			}
			for _, p := range page {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// References lists everyone who has the bytes of a digest, oldest first, at a cost
// in proportion to their number: the references that share the deduplicated blob,
// and those whose bytes are stored once more, in blobs of their own, because
// deduplication was off. Who shares with whom is told by Entry.Path. Errors:
// ErrInvalidQuery for the zero digest, and as with List.
func (f *FileStore) References(ctx context.Context, digest storage.Digest) iter.Seq2[Entry, error] {
	if digest.IsZero() {
		return func(yield func(Entry, error) bool) {
			yield(Entry{}, fmt.Errorf("list references in %s: %w: no digest", f.dir(), storage.ErrInvalidQuery))
		}
	}
	return f.List(ctx, Query{Digest: digest})
}

// listing is a List under way.
type listing struct {
	query  *Query
	filter storage.RefFilter
	after  storage.UUID // where the next page begins
	end    storage.UUID // the list ends before it in its order; zero: nowhere
	empty  bool         // nothing can match
	left   int          // of the limit; negative: there is none
}

func newListing(q *Query) (*listing, error) {
	if err := q.validate(); err != nil {
		return nil, err
	}
	l := &listing{query: q, filter: q.filter(), left: q.Limit}
	if q.Limit == 0 {
		l.left = -1
	}
	begin, end := q.AddedFrom, q.AddedTo
	if q.Order == Newest {
		begin, end = end, begin
	}
	if !begin.IsZero() {
		l.after = storage.UUIDAt(begin)
		l.empty = q.Order == Newest && l.after.IsZero()
	}
	if !end.IsZero() {
		l.end = storage.UUIDAt(end)
		l.empty = l.empty || q.Order != Newest && l.end.IsZero()
	}
	if q.Cursor != "" {
		place, err := q.Cursor.place(q.Order)
		if err != nil {
			return nil, err
		}
		if l.after.IsZero() || l.sooner(l.after, place) {
			l.after = place
		}
	}
	return l, nil
}

// sooner says whether the list comes to a before b.
func (l *listing) sooner(a, b storage.UUID) bool {
	if l.filter.Newest {
		return bytes.Compare(a[:], b[:]) > 0
	}
	return bytes.Compare(a[:], b[:]) < 0
}

// over says whether a UUID is behind the end of the list.
func (l *listing) over(id storage.UUID) bool { return !l.end.IsZero() && !l.sooner(id, l.end) }

// size is how many references the next page is to have.
func (l *listing) size() int {
	q := *l.query
	narrow := q.Type == "" && q.MimeType == "" && len(q.Labels) == 0 && q.CreatedFrom.IsZero() && q.CreatedTo.IsZero() &&
		q.SizeFrom == 0 && q.SizeTo == 0
	if narrow && l.left >= 0 {
		return min(l.left, listPage)
	}
	return listPage
}

// listPage is the next page, and whether there may be another.
func (f *FileStore) listPage(ctx context.Context, l *listing) (page []storage.RefPair, more bool, err error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	return s.listPage(ctx, l)
}

func (s *store) listPage(ctx context.Context, l *listing) (page []storage.RefPair, more bool, err error) {
	all, next, more, err := s.index.Refs(ctx, l.filter, l.after, l.size())
	if err != nil {
		return nil, false, fmt.Errorf("list %s: %w", s.cfg.BaseDir, err)
	}
	l.after = next
	for i := range all {
		if l.over(all[i].Ref.UUID) {
			return page, false, nil
		}
		if !l.query.lets(&all[i]) {
			continue
		}
		page = append(page, all[i])
		if l.left--; l.left == 0 {
			return page, false, nil
		}
	}
	return page, more && !l.over(next), nil
}
