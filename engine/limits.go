package engine

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// limits keeps a store within quotas and free space. The figures that count are
// those of the index and of the filesystem; what stores under way are about to add
// to them is reserved here, from before the first byte is written until it is in
// those figures or has failed. A nil limits has none.
//
// A figure that was read lately, with what has been let go of since, is as bad as
// it can be: it lets in, and never refuses or keeps waiting.
//
// Nobody waits who holds what others may wait for, except that quotas of users and
// sessions are reserved first: who holds those may wait for the total and for free
// space, whose holders wait for nobody.
type limits struct {
	quota Quota
	index Index
	room  *room // nil: MinFreeBytes is not set

	mu       sync.Mutex // guards the rest; held while a figure is read
	reserved map[bound]int64
	figures  map[bound]figure
	changed  chan struct{} // closed once less is reserved or used; nil while nobody waits
}

// bound is a limit, of a user or session where there is one for each.
type bound struct {
	limit Limit
	id    string
}

// figure is how many bytes a bound still allowed at some time, less what was let go
// of since; negative where it is passed.
type figure struct {
	left int64
	at   time.Time
}

// figureAge is how long a figure is used. With one of each Store anew, under mu, 64
// writers waited for each other a fifth of their time. It bounds for how long what
// others do to the filesystem may go unnoticed.
const figureAge = 50 * time.Millisecond

// mostFigures is how many of them are kept before those that are too old go.
const mostFigures = 1024

// claim is so many bytes against a bound.
type claim struct {
	bound
	bytes int64
}

// newLimits returns nil where the configuration sets no limit.
func newLimits(cfg *FileStoreConfig, index Index, r *room) *limits {
	if cfg.Quota == (Quota{}) && r == nil {
		return nil
	}
	return &limits{quota: cfg.Quota, index: index, room: r, reserved: map[bound]int64{}, figures: map[bound]figure{}}
}

// read reads the figure of a bound. It returns the error, too, for who asks for
// more. The caller holds mu.
func (l *limits) read(ctx context.Context, b bound) (left int64, refusal *LimitError, err error) {
	refusal = &LimitError{Limit: b.limit, ID: b.id}
	switch b.limit {
	case LimitFree:
		refusal.Bytes = l.room.min
		refusal.Used, err = l.room.free()
		left = refusal.Used - refusal.Bytes
	case LimitTotal:
		var c storage.Counters
		c, err = l.index.Counters(ctx)
		refusal.Bytes, refusal.Used = l.quota.TotalBytes, c.PhysicalBytes
		left = refusal.Bytes - refusal.Used
	case LimitUser:
		refusal.Bytes = l.quota.UserBytes
		refusal.Used, err = l.logical(ctx, storage.UserIDs, b.id)
		left = refusal.Bytes - refusal.Used
	case LimitSession:
		refusal.Bytes = l.quota.SessionBytes
		refusal.Used, err = l.logical(ctx, storage.SessionIDs, b.id)
		left = refusal.Bytes - refusal.Used
	}
	if err == nil {
		l.keep(b, figure{left, time.Now()})
	}
	return left, refusal, err
}

// keep keeps a figure. The caller holds mu.
func (l *limits) keep(b bound, f figure) {
	if len(l.figures) >= mostFigures {
		maps.DeleteFunc(l.figures, func(_ bound, old figure) bool { return f.at.Sub(old.at) > figureAge })
	}
	l.figures[b] = f
}

// logical is the bytes of the references with an ID.
func (l *limits) logical(ctx context.Context, kind storage.IDKind, id string) (int64, error) {
	u, err := l.index.Usage(ctx, kind, id)
	return u.Bytes, err
}

// fits says whether claims fit beside what is reserved. wait is set where they
// would without that; what does not fit even then is a *LimitError. The caller
// holds mu.
func (l *limits) fits(ctx context.Context, claims []claim) (wait bool, err error) {
	for _, c := range claims {
		reserved := l.reserved[c.bound]
		if f, known := l.figures[c.bound]; known && c.bytes <= f.left-reserved && time.Since(f.at) < figureAge {
			continue
		}
		left, refusal, err := l.read(ctx, c.bound)
		switch {
		case err != nil:
			return false, err
		case c.bytes > left:
			refusal.Asked = c.bytes
			return false, refusal
		case c.bytes > left-reserved:
			wait = true
		}
	}
	return wait, nil
}

// reserve reserves all claims at once, after it has waited for others where that
// helps. Errors: *LimitError, ctx's, or those of the index.
func (l *limits) reserve(ctx context.Context, claims []claim) error {
	for {
		changed, err := l.tryReserve(ctx, claims)
		if changed == nil || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryReserve returns what to wait for where the claims do not fit for now.
func (l *limits) tryReserve(ctx context.Context, claims []claim) (changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait, err := l.fits(ctx, claims)
	if err != nil {
		return nil, err
	}
	if wait {
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		return l.changed, nil
	}
	l.hold(claims)
	return nil, nil
}

// hold adds claims to what is reserved. The caller holds mu.
func (l *limits) hold(claims []claim) {
	for _, c := range claims {
		if c.bytes > 0 {
			l.reserved[c.bound] += c.bytes
		}
	}
}

// release lets go of claims, which by now are in the figures or have failed.
func (l *limits) release(claims []claim) {
	if len(claims) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range claims {
		if c.bytes == 0 {
			continue
		}
		if l.reserved[c.bound] -= c.bytes; l.reserved[c.bound] == 0 {
			delete(l.reserved, c.bound)
		}
		if f, known := l.figures[c.bound]; known {
			f.left -= c.bytes
			l.figures[c.bound] = f
		}
	}
	l.wake()
}

// freed is told that a reference has ended.
func (l *limits) freed() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
}

// wake lets all who wait look again. The caller holds mu.
func (l *limits) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}
