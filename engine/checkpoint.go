package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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
// the last checkpoint, and what it could not pay.
type ledger struct {
	mu    sync.Mutex // guards the lists
	paid  storage.Debt
	owed  []storage.Mirror
	files []owedUnlink
	// retryAt is when a checkpoint next tries what is owed.
	retryAt time.Time

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
	if len(l.paid.Mirrors)+len(l.paid.Unlinks) >= checkpointDebt {
		signal(l.full)
	}
	signal(l.some)
}

func (l *ledger) payMirror(m storage.Mirror) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paid.Mirrors = append(l.paid.Mirrors, m)
	l.notice()
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
	if retry {
		s.retry(ctx)
	}
	// What has been taken from the ledger is seen through.
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	l.mu.Lock()
	paid := l.paid
	l.paid = storage.Debt{}
	l.mu.Unlock()
	if len(paid.Mirrors)+len(paid.Unlinks) == 0 {
		return nil
	}
	// After a failed sync the debt stays in the index: the next opening looks
	// at every file anew.
	if err := s.blobs.Settle(ctx); err != nil {
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
	return nil
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

// payMirrors completes sidecars: it looks at each that is owed a line and
// appends what is missing. Lines that nobody needs any more count as paid.
func (s *store) payMirrors(ctx context.Context, owed []storage.Mirror) error {
	byBlob := map[storage.BlobKey][]storage.Mirror{}
	for _, m := range owed {
		byBlob[m.Blob] = append(byBlob[m.Blob], m)
	}
	var failed []error
	for key, mirrors := range byBlob {
		if err := s.completeSidecar(ctx, key, mirrors); err != nil {
			failed = append(failed, err)
			for _, m := range mirrors {
				s.ledger.oweMirror(m)
			}
		}
	}
	return errors.Join(failed...)
}

// completeSidecar appends to one sidecar what it lacks of its lines, and makes
// the sidecar where it is missing.
func (s *store) completeSidecar(ctx context.Context, key storage.BlobKey, mirrors []storage.Mirror) error {
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	blob, err := s.index.Blob(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		for _, m := range mirrors {
			s.ledger.payMirror(m)
		}
		return nil
	} else if err != nil {
		return err
	}
	sidecar, err := s.blobs.ReadSidecar(ctx, blob.Path)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	// Additions first, so that a sidecar that is made here begins with one.
	slices.SortStableFunc(mirrors, func(a, b storage.Mirror) int { return btoi(a.Deleted) - btoi(b.Deleted) })
	for _, m := range mirrors {
		if !sidecar.Has(&m) {
			wrote, err := s.appendMissing(ctx, &blob, &sidecar, &m)
			if err != nil {
				return err
			}
			if wrote {
				sidecar.Torn, sidecar.Blob.Key = false, key
			}
		}
		s.blobs.Mirrored(blob.Path)
		s.ledger.payMirror(m)
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// appendMissing appends the line of m. It writes nothing for an addition that
// was deleted since.
func (s *store) appendMissing(ctx context.Context, blob *storage.BlobRow, sidecar *storage.Sidecar, m *storage.Mirror) (wrote bool, err error) {
	line := storage.SidecarLine{First: sidecar.Blob.Key == "", AfterTorn: sidecar.Torn, Deleted: m.UUID}
	if !m.Deleted {
		id, err := storage.ParseID(blob.NameHash() + "-" + m.UUID.String())
		if err != nil {
			return false, err
		}
		ref, _, err := s.index.Ref(ctx, id)
		if errors.Is(err, storage.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		line.Ref = &ref
	}
	done, err := s.blobs.Prepare(ctx, blob.Path)
	if err != nil {
		return false, err
	}
	defer done(true)
	return true, s.blobs.AppendSidecar(ctx, blob, &line)
}
