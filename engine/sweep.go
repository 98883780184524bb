package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// sweeper ends what is due while a store is open, if its configuration asks for it.
type sweeper struct {
	cancel context.CancelFunc // nil: there is none
	gone   sync.WaitGroup
}

// sweepJitter is by which part of the interval a pause is longer at most, so that stores
// that were opened together do not sweep together.
const sweepJitter = 10

// maxSweeps is into how many parts the interval is cut at most where references expire
// one after the other: what expires within one part is ended together.
const maxSweeps = 10

func (w *sweeper) start(s *store) {
	if s.cfg.SweepInterval == 0 {
		return
	}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.gone.Go(func() {
		pause := time.Duration(0) // what came due while the store was closed
		for {
			select {
			case <-time.After(pause + rand.N(s.cfg.SweepInterval/sweepJitter+1)):
			case <-ctx.Done():
				return
			}
			pause = s.untilDue(ctx, s.sweep(ctx))
		}
	})
}

// stop waits until what is being ended has come to its end. It can be called again.
func (w *sweeper) stop() {
	if w.cancel != nil {
		w.cancel()
		w.gone.Wait()
	}
}

// sweep ends what is due now, and returns what it took for now.
func (s *store) sweep(ctx context.Context) time.Time {
	x := newExpiry(s, &ExpireOptions{Rate: s.cfg.SweepRate})
	var err error
	for more := true; more && err == nil; {
		more, err = x.page(ctx)
	}
	if errors.Is(err, context.Canceled) {
		err = nil // the store is being closed
	}
	x.over(err)
	if err == nil && x.done.Failed > 0 {
		err = x.done.Failures[0].Err
	}
	did := []any{"store", s.cfg.BaseDir, "references", x.done.References, "blobs", x.done.Blobs,
		"freed_bytes", x.done.FreedBytes, "held", x.done.Held, "failed", x.done.Failed, "took", time.Since(x.begun)}
	switch {
	case err != nil:
		s.cfg.Logger.Error("sweep", append(did, "error", err)...)
	case x.done.References > 0:
		s.cfg.Logger.Info("swept", did...)
	}
	return x.due
}

// untilDue is how long to wait after a sweep of what was due at a time: until the next
// reference expires, but not longer than the interval, for others may come, nor
// shorter than a part of it. What stays although it is due waits for the interval.
func (s *store) untilDue(ctx context.Context, swept time.Time) time.Duration {
	interval := s.cfg.SweepInterval
	now := s.cfg.now()
	page, _, _, err := s.index.Due(ctx, now.Add(interval), storage.Place{At: swept.Add(time.Microsecond)}, 1)
	if err != nil || len(page) == 0 {
		return interval
	}
	return min(max(page[0].Ref.ExpiresAt.Sub(now), interval/maxSweeps), interval)
}
