package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// checkpointInterval is how long paid debt waits for its checkpoint at most,
// and checkpointDebt how much of it there may be before: together they bound
// what Open has to look at after a crash.
const (
	checkpointInterval = time.Second
	checkpointDebt     = 8192
)

// retryInterval is the pause between two attempts to pay what could not be paid,
// because a directory is not writable or the disk is full.
const retryInterval = 30 * time.Second

// ledger is what this process knows of the index's debt: what it has paid since
// the last checkpoint, what the next one pays, and what could not be paid.
type ledger struct {
	// turn is held by a checkpoint: when one returns, what another had taken from
	// the ledger before is settled too.
	turn  sync.Mutex
	mu    sync.Mutex // guards the lists
	paid  storage.Debt
	lines []sidecarLine    // to be written by the next checkpoint
	owed  []storage.Mirror // lines that could not be written
	files []owedUnlink
	// retryAt is when a checkpoint next tries what is owed.
	retryAt time.Time
	// failed counts the calls of Settle that failed, the last for the reason cause;
	// since is how many there had been when paid was begun, and guarded by turn.
	failed atomic.Int64
	cause  atomic.Pointer[error]
	since  int64

	some chan struct{} // of capacity 1: there is something
	full chan struct{} // of capacity 1: there is much
	quit chan struct{}
	gone sync.WaitGroup
}

type owedUnlink struct {
	key  storage.BlobKey
	path string
}

func (l *ledger) start(s *store) {
	l.some, l.full, l.quit = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
	if l.failing() || len(l.paid.Mirrors)+len(l.paid.Unlinks) > 0 {
		signal(l.some) // what recovery could not pay
	}
	l.gone.Go(func() { l.run(s) })
}

// run makes checkpoints until stop. It sleeps while there is nothing to do.
func (l *ledger) run(s *store) {
	for {
		select {
		case <-l.some:
		case <-l.quit:
			return
		}
		select {
		case <-time.After(checkpointInterval):
		case <-l.full:
		case <-l.quit:
			return
		}
		if err := s.checkpoint(context.Background(), l.retryDue()); err != nil {
			s.cfg.Logger.Error("checkpoint", "store", s.cfg.BaseDir, "error", err)
		}
		if l.failing() {
			time.AfterFunc(retryInterval, func() { signal(l.some) })
		}
	}
}

// retryDue says whether it is time to try again what could not be paid.
func (l *ledger) retryDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !time.Now().Before(l.retryAt)
}

// failing says whether something could not be paid.
func (l *ledger) failing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.owed)+len(l.files) > 0
}

// owesFile says whether a blob's file could not be removed; not while that is tried
// again.
func (l *ledger) owesFile(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.files, func(u owedUnlink) bool { return u.path == path })
}

func (l *ledger) stop() {
	if l.quit == nil {
		return
	}
	close(l.quit)
	l.gone.Wait()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// notice wakes run. The caller holds mu.
func (l *ledger) notice() {
	if len(l.lines)+len(l.paid.Unlinks) >= checkpointDebt {
		signal(l.full)
	}
	signal(l.some)
}

func (l *ledger) payMirror(m storage.Mirror) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paid.Mirrors = append(l.paid.Mirrors, m)
	signal(l.some) // whoever has lines to write has noticed how many
}

func (l *ledger) payUnlink(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paid.Unlinks = append(l.paid.Unlinks, storage.Unlink{Path: path})
	l.notice()
}

func (l *ledger) oweMirror(m storage.Mirror) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed = append(l.owed, m)
	l.notice()
}

func (l *ledger) oweUnlink(u owedUnlink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = append(l.files, u)
	l.notice()
}

// checkpoint makes everything that was paid durable, and drops it from the
// index's debt. With retry it first tries again to pay what is owed.
func (s *store) checkpoint(ctx context.Context, retry bool) error {
	l := &s.ledger
	l.turn.Lock()
	defer l.turn.Unlock()
	defer s.watch.tellCommits()
	if retry {
		s.retry(ctx)
	}
	// What has been taken from the ledger is seen through.
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	s.writeWaiting(ctx)
	since := l.since
	l.since = l.failed.Load()
	l.mu.Lock()
	paid := l.paid
	l.paid = storage.Debt{}
	l.mu.Unlock()
	if len(paid.Mirrors)+len(paid.Unlinks) == 0 {
		return nil
	}
	begun := time.Now()
	// After a failed sync the debt stays in the index: the next opening looks
	// at every file anew.
	if err := s.settle(ctx, since); err != nil {
		l.since = l.failed.Load() // what is paid from now on is written after it
		return fmt.Errorf("settle tree: %w", err)
	}
	if err := s.faults.reach(ctx, faultSettled); err != nil {
		return err
	}
	if err := s.index.Settle(ctx, paid); err != nil {
		l.mu.Lock()
		l.paid.Mirrors = append(l.paid.Mirrors, paid.Mirrors...)
		l.paid.Unlinks = append(l.paid.Unlinks, paid.Unlinks...)
		l.mu.Unlock()
		return fmt.Errorf("settle debt: %w", err)
	}
	s.cfg.Logger.Debug("made a checkpoint", "store", s.cfg.BaseDir,
		"sidecar_lines", len(paid.Mirrors), "unlinks", len(paid.Unlinks), "took", time.Since(begun))
	return nil
}

// settle is the tree's Settle for a caller before whose writes so many of them had
// failed. It fails too where another has since: that one may have taken what this caller
// wrote, and nobody can make it durable any more.
func (s *store) settle(ctx context.Context, since int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.blobs.Settle(ctx)
	if err != nil {
		s.ledger.cause.Store(&err)
		s.ledger.failed.Add(1)
	} else if s.ledger.failed.Load() != since {
		err = fmt.Errorf("an earlier sync of the tree has failed: %w", *s.ledger.cause.Load())
	}
	return err
}

// retry tries to pay what is owed.
func (s *store) retry(ctx context.Context) {
	l := &s.ledger
	l.mu.Lock()
	owed, files := l.owed, l.files
	l.owed, l.files = nil, nil
	l.mu.Unlock()
	for _, u := range files {
		s.payRemoval(ctx, storage.UUID{}, &storage.Removal{Last: true, Blob: storage.BlobRow{Key: u.key, Path: u.path}})
	}
	if err := s.payMirrors(ctx, owed); err != nil {
		s.cfg.Logger.Warn("sidecars lack lines for now", "store", s.cfg.BaseDir, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.owed)+len(l.files) > 0 {
		l.retryAt = time.Now().Add(retryInterval)
	}
}
