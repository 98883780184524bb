package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Explanation says why media is kept, until when, and by whom else.
type Explanation struct {
	// Entry is the reference, with its policy (empty: none, which keeps for ever) and
	// expiry.
	Entry Entry
	// Due says that its time is over: the next Expire or sweep ends it unless it is held.
	Due bool
	// Holds are those on the reference or on one of its IDs, which keep it whatever its
	// policy says, in order of their names.
	Holds []Hold
	// Others is how many other references share the blob and keep its bytes, each
	// until it expires or is deleted.
	Others int64
	// Longest is the one of them that keeps the bytes longest; nil: there is none. Of
	// those that a hold is on, or that never expire, it is the one that was added
	// first.
	Longest *Entry
	// LongestHeld says that a hold is on Longest.
	LongestHeld bool
	// BytesUntil is when the bytes go, if nothing changes: when the last reference
	// to the blob expires. Zero: they stay for ever, or until a hold is released.
	BytesUntil time.Time
	// Deletion is what a Delete would do now.
	Deletion Deletion
}

// Deletion is what a Delete would do; its values are stable.
type Deletion string

const (
	DeletionRefused    Deletion = "refused"         // nothing: ErrHeld
	DeletionCounts     Deletion = "counts_down"     // it lowers the reference's count by one
	DeletionKeepsBytes Deletion = "keeps_bytes"     // it ends the reference; others keep the bytes
	DeletionFreesBytes Deletion = "frees_the_bytes" // it ends the reference, and the blob with it
)

// Explain tells why a reference is kept, at a cost in proportion to the references that
// share its blob. What changes meanwhile may or may not show. Errors: ErrInvalidRef,
// ErrNotFound, ErrCorrupted also where it cannot be told what is held, ErrClosed, or
// ctx's.
func (f *FileStore) Explain(ctx context.Context, ref *storage.StorageReference) (Explanation, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Explanation{}, err
	}
	defer leave()
	id, err := parseRef(ref)
	var x Explanation
	if err == nil {
		if x, err = s.explain(ctx, id); err != nil {
			err = fmt.Errorf("reference %s: %w", id, err)
		}
	}
	if err != nil {
		return Explanation{}, fmt.Errorf("explain in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return x, nil
}

func (s *store) explain(ctx context.Context, id storage.ID) (x Explanation, err error) {
	if err := s.holds.known(); err != nil {
		return x, err
	}
	row, blob, err := s.index.Ref(ctx, id)
	if err != nil {
		return x, err
	}
	if x.Entry, err = entry(blob.NameHash(), &row, &blob); err != nil {
		return x, err
	}
	at := s.cfg.now()
	x.Due = !row.ExpiresAt.IsZero() && !row.ExpiresAt.After(at)
	x.Holds = s.holds.of(&row, id)
	if err := s.explainOthers(ctx, &x, &blob, row.UUID); err != nil {
		return x, err
	}
	x.BytesUntil = keptUntil(&x.Entry, len(x.Holds) > 0)
	if x.Longest != nil {
		if until := keptUntil(x.Longest, x.LongestHeld); outlives(until, x.BytesUntil) {
			x.BytesUntil = until
		}
	}
	switch {
	case len(x.Holds) > 0:
		x.Deletion = DeletionRefused
	case row.Count > 1:
		x.Deletion = DeletionCounts
	case x.Others > 0:
		x.Deletion = DeletionKeepsBytes
	default:
		x.Deletion = DeletionFreesBytes
	}
	return x, nil
}

// explainOthers fills in who else keeps a blob.
func (s *store) explainOthers(ctx context.Context, x *Explanation, blob *storage.BlobRow, but storage.UUID) error {
	for p, err := range s.sharers(ctx, blob) {
		if err != nil {
			return err
		}
		if p.Ref.UUID == but {
			continue
		}
		x.Others++
		id, err := idOf(&p.Blob, p.Ref.UUID)
		if err != nil {
			return err
		}
		e, err := entry(p.Blob.NameHash(), &p.Ref, &p.Blob)
		if err != nil {
			return err
		}
		held := len(s.holds.of(&p.Ref, id)) > 0
		if x.Longest != nil && !outlives(keptUntil(&e, held), keptUntil(x.Longest, x.LongestHeld)) {
			continue
		}
		x.Longest, x.LongestHeld = &e, held
	}
	return nil
}

// keptUntil is how long a reference keeps its bytes, zero for ever.
func keptUntil(e *Entry, held bool) time.Time {
	if held {
		return time.Time{}
	}
	return e.ExpiresAt
}

// outlives says whether a time is later than another, where zero is for ever.
func outlives(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

// of is the holds on a reference, in order of name, kind and ID.
func (h *holds) of(ref *storage.RefRow, id storage.ID) []Hold {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var all []Hold
	for _, t := range targetsOf(ref, id) {
		for _, hold := range h.on[t] {
			all = append(all, hold)
		}
	}
	slices.SortFunc(all, compareHolds)
	return all
}
