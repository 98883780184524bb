package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Retain gives a reference another retention policy (see ParsePolicy), whatever it had
// before, and returns it as it stands then. A duration counts from now: so does giving
// it the same policy again. What is extended before it has been ended stays, also
// while an Expire is under way. Errors: ErrInvalidRef, ErrInvalidPolicy, ErrNotFound,
// ErrDiskSpace, ErrIO, ErrInDoubt, ErrClosed, or ctx's.
func (f *FileStore) Retain(ctx context.Context, ref *storage.StorageReference, policy string) (Entry, error) {
	p, err := ParsePolicy(policy)
	var at time.Time
	if err == nil {
		at, err = p.Expiry(f.config.now())
	}
	return f.revise(ctx, ref, "retain", func(row *storage.RefRow) error {
		if err == nil {
			row.Metadata.Policy, row.ExpiresAt = policy, at
		}
		return err
	})
}

// ExpireOptions says how to Expire. The zero value ends everything that is due, as
// fast as it goes.
type ExpireOptions struct {
	// DryRun ends nothing and reports what would be ended now. It remembers a number
	// for each shared blob that would lose some of its references.
	DryRun bool
	// Rate bounds how many references are ended per second. Zero: no bound.
	Rate int
	// Progress is called now and then with the report so far, by one goroutine at a
	// time, and costs a look at all that is due beforehand. Nil: nothing is.
	Progress func(Expired)
}

// Expired is what an Expire has ended.
type Expired struct {
	// Due is how many references were due when it began, for Progress; a result has none.
	Due          int64
	References   int64           // ended
	LogicalBytes int64           // sum of their sizes
	Blobs        int64           // that went with the last of their references
	FreedBytes   int64           // sum of the sizes of these blobs; the rest of LogicalBytes is shared by others
	Held         int64           // references that were due and stay because of holds
	Failed       int64           // references that could not be ended
	Failures     []ExpireFailure // of the first of these, and why
}

// ExpireFailure is a reference that could not be ended.
type ExpireFailure struct {
	ID  string
	Err error
}

// maxFailures bounds Expired.Failures.
const maxFailures = 100

// Expire ends every reference whose time is over when it begins, soonest first,
// whatever its count, and the blobs of which it was the last. It costs what is due,
// held references included. Each is ended by a commit of its own, many of which share a
// sync: after a crash, or when ctx ends, some are ended and the rest are due as before,
// so that Expire can be called again. A reference that Retain extends, or that
// gets a hold, stays if that comes first. A file that cannot be removed is logged and
// tried again at every checkpoint and opening.
//
// The report tells of what was done also when there is an error, which ended it early:
// ErrCorrupted where the index or the journal of the holds cannot be read,
// ErrDiskSpace, ErrIO, ErrInDoubt, ErrClosed, or ctx's.
func (f *FileStore) Expire(ctx context.Context, opts ExpireOptions) (Expired, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Expired{}, err
	}
	x := newExpiry(s, &opts)
	for more := true; more && err == nil; {
		more, err = x.page(ctx)
		leave()
		if more && err == nil {
			_, leave, err = f.enter(ctx) // so that Close need not wait for all
		}
	}
	x.over(err)
	if err != nil {
		err = fmt.Errorf("expire in %s: %w", f.dir(), storage.Classify(err))
	}
	return x.done, err
}

// expirePage is how many references are read at a time.
const expirePage = 1024

// expiry is an Expire under way.
type expiry struct {
	s     *store
	opts  *ExpireOptions
	due   time.Time     // what expires then or before is ended
	after storage.Place // where the next page begins
	begun time.Time

	uncounted bool          // what is due is still being counted, for Progress
	counted   storage.Place // where the next page of that begins
	all       int64         // references that were due when it began

	mu   sync.Mutex // guards the rest
	free time.Time  // when the next reference may be ended, where the rate is bounded
	done Expired
	// shared counts the references of a shared blob that a dry run would end.
	shared map[storage.BlobKey]int64
}

func newExpiry(s *store, opts *ExpireOptions) *expiry {
	return &expiry{s: s, opts: opts, due: s.cfg.now(), begun: time.Now(), uncounted: opts.Progress != nil, shared: map[storage.BlobKey]int64{}}
}

// over tells the listener of the error that has ended it.
func (x *expiry) over(err error) {
	if err != nil {
		x.s.watch.failed(OpExpire, nil, time.Since(x.begun), storage.Classify(err))
	}
}

// page ends the next references that are due, and says whether there may be more.
// With a bound on the rate they are those of about a second.
func (x *expiry) page(ctx context.Context) (more bool, err error) {
	if err := x.s.holds.known(); err != nil {
		return false, err
	}
	if x.uncounted {
		return true, x.count(ctx)
	}
	limit := expirePage
	if x.opts.Rate > 0 {
		limit = min(limit, x.opts.Rate)
	}
	page, next, more, err := x.s.index.Due(ctx, x.horizon(), x.after, limit)
	if err != nil {
		return false, err
	}
	x.after = next
	if x.opts.DryRun {
		for i := range page {
			if err := x.foresee(&page[i]); err != nil {
				return false, err
			}
		}
	} else if err := x.end(ctx, page); err != nil {
		return false, err
	}
	x.progress()
	return more, nil
}

// count counts the next page of what is due.
func (x *expiry) count(ctx context.Context) error {
	page, next, more, err := x.s.index.Due(ctx, x.horizon(), x.counted, expirePage)
	if err != nil {
		return err
	}
	x.all += int64(len(page))
	x.counted, x.uncounted = next, more
	return nil
}

// progress tells how far it is.
func (x *expiry) progress() {
	if x.opts.Progress == nil {
		return
	}
	far := x.done
	far.Due = x.all
	x.opts.Progress(far)
}

// horizon is a time that all that is due expires before.
func (x *expiry) horizon() time.Time { return x.due.Add(time.Microsecond) }

// end ends the references of a page. An error is one that the others would meet as
// well; all that had begun has come to its end.
func (x *expiry) end(ctx context.Context, page []storage.RefPair) error {
	defer x.s.watch.tellCommits()
	failed := make([]error, len(page))
	var over atomic.Bool
	parallel(len(page), func(i int) {
		if over.Load() {
			return
		}
		if failed[i] = x.pace(ctx); failed[i] == nil {
			failed[i] = x.endOne(ctx, &page[i])
		}
		if failed[i] != nil {
			over.Store(true)
		}
	})
	for _, err := range failed {
		if err != nil {
			return err // the others are of the same kind
		}
	}
	return nil
}

// pace waits until another reference may be ended.
func (x *expiry) pace(ctx context.Context) error {
	if x.opts.Rate <= 0 {
		return ctx.Err()
	}
	x.mu.Lock()
	at := time.Now()
	if at.Before(x.free) {
		at = x.free
	}
	x.free = at.Add(time.Second / time.Duration(x.opts.Rate))
	x.mu.Unlock()
	select {
	case <-time.After(time.Until(at)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endOne ends a reference, if it is still due.
func (x *expiry) endOne(ctx context.Context, p *storage.RefPair) error {
	begun := time.Now()
	id, err := idOf(&p.Blob, p.Ref.UUID)
	var removal storage.Removal
	if err == nil {
		removal, err = x.s.expire(ctx, id, x.due)
	}
	if err == nil && removal.Found {
		x.s.watch.tell(x.s.watch.listener.Expired, OpExpire, id, &removal.Blob, time.Since(begun), removal.Last)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case errors.Is(err, storage.ErrHeld):
		x.done.Held++
		return nil
	case err != nil:
		return x.fail(p, err)
	case removal.Found:
		x.done.count(&removal.Blob, removal.Last)
	}
	return nil
}

// fail counts a reference that could not be ended. The error that it returns is one
// that is not about this reference alone. The caller holds mu.
func (x *expiry) fail(p *storage.RefPair, err error) error {
	err = fmt.Errorf("reference %s-%s: %w", p.Blob.NameHash(), p.Ref.UUID, err)
	if !errors.Is(err, storage.ErrCorrupted) || errors.Is(err, storage.ErrInDoubt) {
		return err
	}
	if x.done.Failed++; x.done.Failed <= maxFailures {
		x.done.Failures = append(x.done.Failures, ExpireFailure{p.Blob.NameHash() + "-" + p.Ref.UUID.String(), err})
	}
	return nil
}

// foresee counts what ending a reference would do.
func (x *expiry) foresee(p *storage.RefPair) error {
	id, err := idOf(&p.Blob, p.Ref.UUID)
	if err != nil {
		return x.fail(p, err)
	}
	x.s.holds.mu.RLock()
	err = x.s.heldBy(&p.Ref, id)
	x.s.holds.mu.RUnlock()
	switch {
	case errors.Is(err, storage.ErrHeld):
		x.done.Held++
		return nil
	case err != nil:
		return err
	}
	last := p.Blob.Refs == 1
	if !last {
		x.shared[p.Ref.Blob]++
		if last = x.shared[p.Ref.Blob] >= p.Blob.Refs; last {
			delete(x.shared, p.Ref.Blob)
		}
	}
	x.done.count(&p.Blob, last)
	return nil
}

func (e *Expired) count(blob *storage.BlobRow, last bool) {
	e.References++
	e.LogicalBytes += blob.Size
	if last {
		e.Blobs++
		e.FreedBytes += blob.Size
	}
}

// expire ends a reference that is due at a time, unless it is held or is due no more,
// as delete does.
func (s *store) expire(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	removal, err := s.endUnheld(ctx, id, due)
	if err != nil || !removal.Found {
		return removal, err
	}
	if err := s.faults.reach(ctx, faultRemoved); err != nil {
		return removal, err
	}
	s.payRemoval(context.WithoutCancel(ctx), id.UUID, &removal)
	return removal, nil
}
