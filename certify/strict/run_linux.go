package strict

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

// storeName is where a run's store is made on the mount: the store makes the
// directories above it, too.
const storeName = "made/by/the store"

// Run is how a store is used on a strict filesystem.
type Run struct {
	// Seed is the workload's.
	Seed uint64
	// Configure changes the configuration of every opening, also of those that
	// judge. Nil: nothing is changed.
	Configure func(engine.FileStoreConfig) engine.FileStoreConfig
	// SyncFS returns the configuration with a function in place of syncfs(2),
	// which does not reach the filesystem. Nil: the store does without.
	SyncFS func(engine.FileStoreConfig, func() error) engine.FileStoreConfig
	// Use is what is done with the store. Nil: workload.Run.
	Use func(ctx context.Context, target workload.Target, seed uint64, journal *workload.Journal) error
	// Scratch is an empty directory for what a run keeps; fastest on tmpfs.
	Scratch string
}

// Recording is a use of a store, of which every event is a place to cut.
type Recording struct {
	run     *Run
	file    string // the events
	from    string // the tree before the first event, or ""
	events  []Event
	journal *workload.Journal
	begun   int // the journal's time at the first event
}

// Record runs the workload once.
func (r *Run) Record(ctx context.Context) (*Recording, error) {
	use := r.Use
	if use == nil {
		use = workload.Run
	}
	return r.record("", 0, func(m *Mount, clock func() int64) (*workload.Journal, error) {
		j := workload.NewJournal(clock, nil)
		if err := use(ctx, r.target(m.Dir, m), r.Seed, j); err != nil {
			return nil, err
		}
		if failed := j.Failed(); len(failed) > 0 {
			return nil, fmt.Errorf("%d operations failed, the first of them: %s", len(failed), failed[0].Error)
		}
		return j, nil
	})
}

// record records what use does to a mount that begins as the tree from; its
// clock goes on from begun.
func (r *Run) record(from string, begun int, use func(*Mount, func() int64) (*workload.Journal, error)) (_ *Recording, err error) {
	dir, err := os.MkdirTemp(r.Scratch, "mount-")
	if err != nil {
		return nil, err
	}
	rec := &Recording{run: r, file: dir + ".events", from: from, begun: begun}
	defer func() {
		err = errors.Join(err, os.Remove(dir))
		if err != nil {
			err = errors.Join(err, os.RemoveAll(rec.file))
		}
	}()
	m, err := New(dir, from, rec.file)
	if err != nil {
		return nil, err
	}
	var stopped error // of the clock
	rec.journal, err = use(m, func() int64 {
		n, err := m.Clock()
		stopped = errors.Join(stopped, err)
		return int64(begun + n)
	})
	if err = errors.Join(err, stopped, m.Close()); err != nil {
		return nil, err
	}
	rec.events, err = ReadEvents(rec.file)
	return rec, err
}

// Close removes the recording.
func (rec *Recording) Close() error { return os.Remove(rec.file) }

// Len is the number of events. A cut can be made after each of them, and before
// the first.
func (rec *Recording) Len() int { return len(rec.events) }

// target is the store below a directory, which is the mount's if m is not nil.
func (r *Run) target(dir string, m *Mount) workload.Target {
	return workload.Target{Dir: filepath.Join(dir, storeName), Configure: func(c engine.FileStoreConfig) engine.FileStoreConfig {
		switch {
		case m == nil:
		case r.SyncFS == nil:
			c.NoSyncFS = true
		default:
			c = r.SyncFS(c, m.SyncFS)
		}
		if r.Configure != nil {
			c = r.Configure(c)
		}
		return c
	}}
}

// at is the model after some of the events.
func (rec *Recording) at(cut int) (*Model, error) {
	m, err := rec.start()
	for i := 0; err == nil && i < cut; i++ {
		m.Apply(&rec.events[i])
	}
	return m, err
}

func (rec *Recording) start() (*Model, error) {
	if rec.from == "" {
		return NewModel(), nil
	}
	return Read(rec.from)
}

// Again recovers from a cut on a strict filesystem, which can then be cut again.
// The verdict is that of the recovery.
func (rec *Recording) Again(ctx context.Context, cut int, c Choice) (*Recording, *workload.Verdict, error) {
	m, err := rec.at(cut)
	if err != nil {
		return nil, nil, err
	}
	from, err := os.MkdirTemp(rec.run.Scratch, "from-")
	if err != nil {
		return nil, nil, err
	}
	if err := m.Survive(c).Write(from); err != nil {
		return nil, nil, err
	}
	var verdict *workload.Verdict
	again, err := rec.run.record(from, rec.begun+cut, func(m *Mount, clock func() int64) (*workload.Journal, error) {
		j := rec.journal.Cut(int64(rec.begun+cut), clock)
		var err error
		if verdict, err = workload.Judge(ctx, rec.run.target(m.Dir, m), j); err != nil {
			return nil, err
		}
		j.Settle(verdict)
		return j, nil
	})
	return again, verdict, err
}
