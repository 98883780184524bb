package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// guardRetry is the pause between two attempts to take a guard.
const guardRetry = 10 * time.Millisecond

// takeGuard takes hold of a control directory. Whoever has the store open shares
// the guard, whoever replaces its index has it alone: so no file of an index that
// somebody uses is ever replaced, and no two replace one. A guard ends when the
// file is closed, or with its process. Where the filesystem knows no such locks a
// shared one is none, and one that is to be alone is an error. Errors: ErrLocked
// after the timeout, ErrPermission, ErrIO, or ctx's.
func takeGuard(ctx context.Context, ctl *os.Root, alone bool, timeout time.Duration) (_ *os.File, err error) {
	f, err := openGuard(ctl)
	if err != nil {
		return nil, storage.Classify(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	deadline := time.Now().Add(timeout)
	for {
		taken, err := tryGuard(f, alone)
		switch {
		case err != nil && !alone:
			return f, nil
		case err != nil:
			return nil, fmt.Errorf("lock %s: %w", ctl.Name(), storage.Classify(err))
		case taken:
			return f, nil
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: %s is in use by another process (waited %s)", storage.ErrLocked, ctl.Name(), timeout)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(guardRetry):
		}
	}
}

// shareGuard takes the shared guard of a store that is being opened. Where an
// index was being replaced it sees that through first.
func (s *store) shareGuard(ctx context.Context) error {
	for {
		guard, err := takeGuard(ctx, s.ctl, false, s.cfg.LockTimeout)
		if err != nil {
			return err
		}
		s.guard = guard
		stamp, unfinished, err := replacements(s.ctl)
		if err != nil {
			return err
		}
		if stamp == "" {
			if unfinished { // nobody builds one while the guard is shared
				return s.ctl.RemoveAll(unfinishedDir)
			}
			return nil
		}
		if err := s.leaveGuard(); err != nil {
			return err
		}
		if s.guard, err = takeGuard(ctx, s.ctl, true, s.cfg.LockTimeout); err != nil {
			return err
		}
		if err := s.finishReplacements(ctx); err != nil {
			return err
		}
		if err := s.leaveGuard(); err != nil {
			return err
		}
	}
}

func (s *store) leaveGuard() error {
	if s.guard == nil {
		return nil
	}
	f := s.guard
	s.guard = nil
	return f.Close()
}
