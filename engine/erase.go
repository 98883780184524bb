package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mediabolt/mediabolt/storage"
)

// EraseOptions say how to erase.
type EraseOptions struct {
	// By is who asks, and Reason why, for the ledger: free text that names no one
	// whose media is erased, of at most MaxEraseBy and MaxEraseReason bytes.
	By, Reason string
	// DryRun changes nothing and answers what an erasure now would.
	DryRun bool
	// Progress is told now and then of how far it has come; nil: nobody is. It is
	// called from one goroutine at a time, must not take long, and costs a look at all
	// that the query matches beforehand.
	Progress func(Erasure)
}

// Bounds of the texts of EraseOptions, in bytes of UTF-8.
const (
	MaxEraseBy     = 256
	MaxEraseReason = 4096
)

// Erasure is what an erasure has done, or a dry run would do.
type Erasure struct {
	ID string `json:"id"` // a UUID; empty for a dry run
	// By and Reason are those of EraseOptions.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// DecidedAt is its moment: references that were there then are erased, whenever
	// that is done. FinishedAt is zero as long as it is not.
	DecidedAt  time.Time `json:"decided_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// Query is what was erased, without its IDs.
	Query ErasedQuery `json:"query"`

	References  int64 `json:"references"`   // that ended
	Blobs       int64 `json:"blobs"`        // that went with them
	FreedBytes  int64 `json:"freed_bytes"`  // sizes of these blobs
	SharedBlobs int64 `json:"shared_blobs"` // that stay because others have references to them
	SharedBytes int64 `json:"shared_bytes"` // sizes of these blobs
	// Moved counts blobs that were given other paths because theirs, or what their
	// sidecars say of references that ended, held an ID of the query. A dry run does
	// not look for them.
	Moved  int64 `json:"moved"`
	Failed int64 `json:"failed"` // references and blobs that stay as they were
	// Failures say which these are and why; not more than MaxEraseFailures of them.
	Failures []EraseFailure `json:"failures,omitempty"`
	// Far is how far it is, for Progress; a result has none.
	Far EraseProgress `json:"-"`
	// Quarantined are the batches of the quarantine that tell of an ID of the query, or
	// that cannot be read: PurgeQuarantine removes them. KeptIndexes are copies of an
	// index that a migration or a rebuild has kept, by paths relative to the base
	// directory: they may tell of what was erased until they are removed. Both are as
	// they were when the erasure finished; it leaves them as they are.
	Quarantined []string `json:"quarantined,omitempty"`
	KeptIndexes []string `json:"kept_indexes,omitempty"`
}

// MaxEraseFailures bounds Erasure.Failures.
const MaxEraseFailures = 1000

// EraseStep is a part of an erasure; its values are stable.
type EraseStep string

const (
	EraseCount      EraseStep = "count"      // which references there are
	EraseReferences EraseStep = "references" // end
	EraseTraces     EraseStep = "traces"     // are looked for, at all blobs of the store
)

// EraseProgress is for how many references or blobs a step is done, of about Total; 0
// is not known.
type EraseProgress struct {
	Step        EraseStep
	Done, Total int64
}

// EraseFailure is a reference that was not erased, or a blob that was not moved.
type EraseFailure struct {
	Ref  string `json:"ref,omitempty"`  // ID of the reference
	Path string `json:"path,omitempty"` // of the blob
	Err  error  `json:"-"`
	// Reason is the text of Err.
	Reason string `json:"reason"`
}

// Erase deletes every reference that a query matches and that was there at one
// moment, the decision. From then on it goes to its end: a crash or an error in
// between only puts it off, to the next opening of the store, which goes on with it
// in the background, or to Resume. Erasing again what is erased finds nothing.
//
// References under a hold stay, and are told of as failures (ErrHeld); so is
// everything else that could not be done. The error is that of an erasure that was
// not decided, or not finished: ErrInvalidQuery for a query without a filter, or with
// an order, limit or cursor; ErrCorrupted, ErrDiskSpace, ErrPermission, ErrIO,
// ErrClosed, or ctx's.
//
// When an erasure by IDs has finished, no sidecar holds one of these IDs and no
// directory is named after one, unless there are references that still have it: those
// that failed, that other filters of the query spared, or that were added since. A
// shared blob whose path has an ID is moved to the directory of one that refers to
// it. What is erased is not overwritten: its bytes may be found in free blocks of the
// filesystem, and its rows in free pages of the index, until those are used again or
// the index is compacted, and in the log until it has gone round. What a Repair has
// set aside in the quarantine stays, and so do copies of an index that a migration or a
// rebuild has kept: Erasure.Quarantined and KeptIndexes name them.
func (f *FileStore) Erase(ctx context.Context, q Query, options EraseOptions) (Erasure, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Erasure{}, err
	}
	defer leave()
	defer s.watch.tellCommits()
	e, err := s.erase(ctx, q, options)
	if err != nil {
		return e, fmt.Errorf("erase in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return e, nil
}

func (s *store) erase(ctx context.Context, q Query, options EraseOptions) (Erasure, error) {
	if err := checkErase(&q, &options); err != nil {
		return Erasure{}, err
	}
	until, err := s.decision(ctx)
	if err != nil {
		return Erasure{}, err
	}
	e := Erasure{By: options.By, Reason: options.Reason, DecidedAt: now(), Query: maskQuery(&q, until)}
	run := erasing{s: s, query: &q, until: until, told: options.Progress, Erasure: e}
	if err := s.holds.known(); err != nil {
		return Erasure{}, err
	}
	if options.DryRun {
		if err := run.count(ctx); err != nil {
			return run.Erasure, err
		}
		return run.Erasure, run.kept(ctx)
	}
	run.ID = until.String()
	leave, err := s.erasures.alone(ctx)
	if err != nil {
		return Erasure{}, err
	}
	defer leave()
	if err := s.erasures.decide(pendingErasure{Erasure: run.Erasure, Until: until, Wanted: q}); err != nil {
		return Erasure{}, err
	}
	err = run.run(ctx)
	return run.Erasure, err
}

// decision is a UUID after those of all references, and before those of later ones:
// some may be of a time that is still to come, since the clock was set back.
func (s *store) decision(ctx context.Context) (storage.UUID, error) {
	newest, _, _, err := s.index.Refs(ctx, storage.RefFilter{Newest: true}, storage.UUID{}, 1)
	if err != nil {
		return storage.UUID{}, err
	}
	if len(newest) > 0 {
		s.mint.pass(newest[0].Ref.UUID)
	}
	return s.mint.next()
}

// checkErase is ErrInvalidQuery for what nothing can be erased by. It puts times in
// UTC, in which the journal can keep them all.
func checkErase(q *Query, options *EraseOptions) error {
	if err := q.validate(); err != nil {
		return err
	}
	for _, t := range [...]*time.Time{&q.CreatedFrom, &q.CreatedTo, &q.AddedFrom, &q.AddedTo} {
		*t = t.UTC()
	}
	texts := []string{q.SessionID, q.ConversationID, q.RunID, q.UserID, q.Type, q.MimeType, options.By, options.Reason}
	for key, value := range q.Labels {
		texts = append(texts, key, value)
	}
	if i := slices.IndexFunc(texts, func(s string) bool { return !utf8.ValidString(s) }); i >= 0 {
		return fmt.Errorf("%w: %.80q is not valid UTF-8", storage.ErrInvalidQuery, texts[i])
	}
	switch {
	case !q.Narrows():
		return fmt.Errorf("%w: it has no filter, and would erase everything", storage.ErrInvalidQuery)
	case q.Order != "" || q.Limit != 0 || q.Cursor != "":
		return fmt.Errorf("%w: an order, limit or cursor is for lists, not for erasing", storage.ErrInvalidQuery)
	case len(options.By) > MaxEraseBy || len(options.Reason) > MaxEraseReason:
		return fmt.Errorf("%w: by of %d bytes, reason of %d: at most %d and %d are kept", storage.ErrInvalidQuery,
			len(options.By), len(options.Reason), MaxEraseBy, MaxEraseReason)
	}
	return nil
}

// erasing is an erasure under way.
type erasing struct {
	s     *store
	query *Query
	until storage.UUID // references from it on are none of the decision
	told  func(Erasure)
	far   EraseProgress

	mu sync.Mutex // guards the rest, while pages are worked on
	Erasure
	// shared is the blobs that have lost a reference and stay, with their sizes.
	shared      map[storage.BlobKey]int64
	sharedBytes int64 // sum of these
	// before is the SharedBlobs and SharedBytes of a run that this one goes on with;
	// it may have counted blobs that this one counts as well, or frees.
	before [2]int64
}

// run does what has been decided, and enters it into the ledger. With an error it is
// still pending.
func (e *erasing) run(ctx context.Context) error {
	err := e.finish(ctx)
	if err != nil {
		err = errors.Join(err, e.s.erasures.stopped(&e.Erasure))
	}
	return err
}

func (e *erasing) finish(ctx context.Context) error {
	if err := e.s.holds.known(); err != nil {
		return err
	}
	since := e.s.ledger.failed.Load()
	if err := e.references(ctx); err != nil {
		return err
	}
	if err := e.traces(ctx); err != nil {
		return err
	}
	if err := e.kept(ctx); err != nil {
		return err
	}
	if err := e.s.holds.forget(); err != nil {
		return err
	}
	// That everything is gone is durable before the ledger says so.
	if err := e.s.checkpoint(ctx, true); err != nil {
		return err
	}
	// Directories that were removed without a file owe nothing to a checkpoint.
	if err := e.s.settle(ctx, since); err != nil {
		return err
	}
	e.FinishedAt = now()
	if err := e.s.erasures.finish(&e.Erasure); err != nil {
		e.FinishedAt = time.Time{}
		return err
	}
	e.s.cfg.Logger.Info("erased", "store", e.s.cfg.BaseDir, "erasure", e.ID, "references", e.References, "blobs", e.Blobs,
		"bytes", e.FreedBytes, "moved", e.Moved, "failed", e.Failed)
	return nil
}

// pages calls fn with what the decision is about, some of it at a time.
func (e *erasing) pages(ctx context.Context, fn func(page []storage.RefPair) error) error {
	e.shared, e.sharedBytes = map[storage.BlobKey]int64{}, 0
	l, err := newListing(e.query)
	if err != nil {
		return err
	}
	if l.end.IsZero() || l.sooner(e.until, l.end) {
		l.end = e.until
	}
	for more := !l.empty; more; {
		var page []storage.RefPair
		if page, more, err = e.s.listPage(ctx, l); err != nil {
			return err
		}
		if err := fn(page); err != nil {
			return err
		}
		e.sum()
		e.tell(len(page))
	}
	return nil
}

// tell tells of some more that the step is done for.
func (e *erasing) tell(more int) {
	e.far.Done += int64(more)
	if e.told == nil {
		return
	}
	now := e.Erasure
	now.Far = e.far
	if now.Far.Total > 0 {
		now.Far.Total = max(now.Far.Total, now.Far.Done)
	}
	e.told(now)
}

// sum adds up what the blobs that stay come to.
func (e *erasing) sum() {
	e.SharedBlobs, e.SharedBytes = e.before[0]+int64(len(e.shared)), e.before[1]+e.sharedBytes
}

// references ends the references of the decision.
func (e *erasing) references(ctx context.Context) error {
	if e.told != nil {
		e.far = EraseProgress{Step: EraseCount}
		if err := e.pages(ctx, func([]storage.RefPair) error { return ctx.Err() }); err != nil {
			return err
		}
	}
	e.far = EraseProgress{Step: EraseReferences, Total: e.far.Done}
	return e.pages(ctx, func(page []storage.RefPair) error {
		stop := make([]error, len(page))
		parallel(len(page), func(i int) {
			if stop[i] = ctx.Err(); stop[i] == nil {
				stop[i] = e.end(ctx, &page[i])
			}
		})
		if err := errors.Join(stop...); err != nil {
			return err
		}
		return e.s.erasures.progress(&e.Erasure)
	})
}

// end ends one reference. Its error is one that ends the erasure.
func (e *erasing) end(ctx context.Context, p *storage.RefPair) error {
	id, err := idOf(&p.Blob, p.Ref.UUID)
	if err != nil {
		return err
	}
	begun := time.Now()
	removal, err := e.s.endUnheld(ctx, id, time.Time{})
	left := errors.Is(err, storage.ErrHeld) || errors.Is(err, storage.ErrCorrupted) && !errors.Is(err, storage.ErrInDoubt)
	if err != nil && !left {
		return fmt.Errorf("reference %s: %w", id, err)
	}
	if err == nil && removal.Found {
		if err := e.s.faults.reach(ctx, faultRemoved); err != nil {
			return err
		}
		e.s.payRemoval(context.WithoutCancel(ctx), id.UUID, &removal)
		e.s.watch.erased(begun, id, &removal)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil:
		e.fail(EraseFailure{Ref: id.String(), Path: p.Blob.Path, Err: err})
	case removal.Found:
		e.ended(&removal.Blob, removal.Last)
	}
	return nil
}

// ended counts a reference that ended. The caller holds mu.
func (e *erasing) ended(blob *storage.BlobRow, last bool) {
	e.References++
	e.sharedBytes -= e.shared[blob.Key]
	if !last {
		e.shared[blob.Key] = blob.Size
		e.sharedBytes += blob.Size
		return
	}
	delete(e.shared, blob.Key)
	e.Blobs++
	e.FreedBytes += blob.Size
}

// fail notes what stays as it was. The caller holds mu.
func (e *erasing) fail(f EraseFailure) {
	e.Failed++
	if f.Reason = f.Err.Error(); len(e.Failures) < MaxEraseFailures {
		e.Failures = append(e.Failures, f)
	}
}

// count is references for a dry run.
func (e *erasing) count(ctx context.Context) error {
	left := map[storage.BlobKey]int64{} // references that blobs would have left
	e.far = EraseProgress{Step: EraseCount}
	return e.pages(ctx, func(page []storage.RefPair) error {
		e.s.holds.mu.RLock()
		defer e.s.holds.mu.RUnlock()
		for i := range page {
			p := &page[i]
			id, err := idOf(&p.Blob, p.Ref.UUID)
			if err == nil {
				err = e.s.heldBy(&p.Ref, id)
			}
			if err != nil && !errors.Is(err, storage.ErrHeld) {
				return err
			} else if err != nil {
				e.fail(EraseFailure{Ref: id.String(), Path: p.Blob.Path, Err: err})
				continue
			}
			refs, seen := left[p.Blob.Key]
			if !seen {
				refs = p.Blob.Refs
			}
			left[p.Blob.Key] = refs - 1
			e.ended(&p.Blob, refs == 1)
			if refs == 1 {
				delete(left, p.Blob.Key)
			}
		}
		return nil
	})
}
