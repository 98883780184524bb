package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Order is the order of a List. References are in order of their UUIDs, which is
// that of the Store calls that made them (Entry.AddedAt): their CreatedAt may be
// anything that a caller gave.
type Order string

const (
	Oldest Order = "oldest" // who was added first comes first, the default
	Newest Order = "newest" // who was added last comes first
)

// Query says what a List is to list; the zero Query lists everything, oldest
// first. Filters narrow together. A zero field is no filter.
//
// What a List costs depends on its narrowest index: Digest, else SessionID,
// ConversationID, RunID or UserID, whichever of them is first in this order and
// set, each times the range of AddedFrom and AddedTo. All other filters look at
// every reference that these leave.
type Query struct {
	ConversationID, SessionID, RunID, UserID string
	// Type is the kind of media, as it was stored.
	Type string
	// MimeType is what the MIME type begins with: "image/", "image/png". Case is
	// ignored.
	MimeType string
	// Labels that are all there with these values.
	Labels map[string]string
	// Digest is that of the bytes. References to bytes that are stored without
	// deduplication, in blobs of their own, are listed too.
	Digest storage.Digest
	// CreatedFrom and CreatedTo bound MediaMetadata.CreatedAt, the former
	// included, the latter not.
	CreatedFrom, CreatedTo time.Time
	// AddedFrom and AddedTo bound the time of the Store call, the former
	// included, the latter not. It is read from the clock of the machine, and
	// does not go back within a process when that does.
	AddedFrom, AddedTo time.Time
	// SizeFrom and SizeTo bound the size in bytes, the former included, the
	// latter not.
	SizeFrom, SizeTo int64

	// Order of the list. Default: Oldest.
	Order Order
	// Limit is how many references are listed at most. Default: all.
	Limit int
	// Cursor continues a list behind an entry of an earlier one of the same
	// order; see After. Default: from the beginning.
	Cursor Cursor
}

// After is the Cursor with which a list in the order of q goes on behind e, an
// entry of List, References or Stat. It stays good when the reference is deleted
// and when the store is closed and opened again.
//
// A reference has the place in the list at which its Store call began, so one that
// was under way when e was listed may come before e. Who polls for what is new asks
// with AddedFrom, from a moment before the longest Store.
func (q *Query) After(e *Entry) Cursor {
	id, err := storage.ParseID(e.Reference.ID)
	if err != nil {
		return newCursor(storage.UUID{}, q.Order) // no entry: a List says so
	}
	return newCursor(id.UUID, q.Order)
}

// validate answers ErrInvalidQuery for what nothing can be asked with.
func (q *Query) validate() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", storage.ErrInvalidQuery, fmt.Sprintf(format, args...))
	}
	if q.Order != "" && q.Order != Oldest && q.Order != Newest {
		return invalid("order %q: want %q or %q", string(q.Order), Oldest, Newest)
	}
	if q.Limit < 0 {
		return invalid("limit %d is negative", q.Limit)
	}
	if _, there := q.Labels[""]; there {
		return invalid("a label without a key")
	}
	if q.SizeFrom < 0 || q.SizeTo < 0 || q.SizeTo > 0 && q.SizeFrom > q.SizeTo {
		return invalid("sizes from %d to %d bytes", q.SizeFrom, q.SizeTo)
	}
	for _, r := range [...]struct {
		what     string
		from, to time.Time
	}{{"created", q.CreatedFrom, q.CreatedTo}, {"added", q.AddedFrom, q.AddedTo}} {
		for _, t := range [...]time.Time{r.from, r.to} {
			if y := t.UTC().Year(); y < 1 || y > 9999 {
				return invalid("%s %v: year outside 1 to 9999 in UTC", r.what, t)
			}
		}
		if !r.from.IsZero() && !r.to.IsZero() && r.from.After(r.to) {
			return invalid("%s from %v to %v: ends before it begins", r.what, r.from, r.to)
		}
	}
	return nil
}

// Narrows says whether the query has a filter at all.
func (q *Query) Narrows() bool {
	return q.filter() != storage.RefFilter{Newest: q.Order == Newest} || q.Type != "" || q.MimeType != "" || len(q.Labels) > 0 ||
		q.SizeFrom > 0 || q.SizeTo > 0 || !q.CreatedFrom.IsZero() || !q.CreatedTo.IsZero() || !q.AddedFrom.IsZero() || !q.AddedTo.IsZero()
}

// filter is what the index does of the query.
func (q *Query) filter() storage.RefFilter {
	return storage.RefFilter{
		ConversationID: q.ConversationID, SessionID: q.SessionID, RunID: q.RunID, UserID: q.UserID,
		Digest: q.Digest, Newest: q.Order == Newest,
	}
}

// lets says whether the rest of the query, without the times of adding, lets a
// reference through.
func (q *Query) lets(p *storage.RefPair) bool {
	created := p.Ref.Metadata.CreatedAt
	return (q.Type == "" || q.Type == p.Ref.Type) &&
		len(p.Ref.MimeType) >= len(q.MimeType) && strings.EqualFold(p.Ref.MimeType[:len(q.MimeType)], q.MimeType) &&
		(q.CreatedFrom.IsZero() || !created.Before(q.CreatedFrom)) &&
		(q.CreatedTo.IsZero() || created.Before(q.CreatedTo)) &&
		p.Blob.Size >= q.SizeFrom && (q.SizeTo == 0 || p.Blob.Size < q.SizeTo) &&
		q.labelled(p.Ref.Metadata.Labels)
}

func (q *Query) labelled(labels map[string]string) bool {
	for key, want := range q.Labels {
		if value, there := labels[key]; !there || value != want {
			return false
		}
	}
	return true
}
