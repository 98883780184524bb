package cell

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/bench"
	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// removable is how many references there are to be deleted, for each second of
// the measurement.
const removable = 20_000

// listed is how many references of a session are listed.
const listed = 100

// rowsPerMilli keeps the rows of cells apart that use one index after another:
// their numbers begin with the time.
const rowsPerMilli = 1 << 7

// indexSubject is an index without a store.
type indexSubject struct {
	subject
	cell  *Cell
	rows  bench.Rows
	index engine.Index
	next  atomic.Uint64 // number of the last row that was added
}

func openIndex(ctx context.Context, c *Cell, dir string) (*subject, error) {
	st, err := named(c.Index)
	if err != nil {
		return nil, err
	}
	ctl := filepath.Join(dir, blobs.ControlDir)
	if err := os.MkdirAll(ctl, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(ctl)
	if err != nil {
		return nil, err
	}
	s := &indexSubject{cell: c, rows: c.Rows()}
	s.next.Store(uint64(time.Now().UnixMilli()) * rowsPerMilli)
	var hooked atomic.Int64
	s.index, err = st.Open(ctx, engine.IndexConfig{
		Root: root, Create: true, Organization: storage.OrganizationBySession, FileMode: 0o600,
		Sync: func([]storage.BlobKey) error { hooked.Add(1); return nil },
	})
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.counters = s.index.Counters
	s.commits = counted(func() engine.Index { return s.index }, &hooked)
	s.close = func() error { return errors.Join(s.index.Close(), root.Close()) }
	s.start, err = s.operation(ctx)
	return &s.subject, err
}

// counted asks the index for its commits, if it counts them, or else counts the
// calls of its Sync hook.
func counted(index func() engine.Index, hooked *atomic.Int64) func() (int64, string) {
	return func() (int64, string) {
		if x, ok := index().(interface{ Commits() uint64 }); ok {
			return int64(x.Commits()), "index"
		}
		return hooked.Load(), "sync hook"
	}
}

func (s *indexSubject) operation(ctx context.Context) (func(int) func() error, error) {
	var op func() error
	switch s.cell.Op {
	case Store:
		op = func() error { return s.store(ctx) }
	case Retrieve:
		op = func() error { return s.ref(ctx) }
	case Mixed:
		op = func() error {
			if rand.IntN(10) == 0 {
				return s.store(ctx)
			}
			return s.ref(ctx)
		}
	case List:
		op = func() error { return s.list(ctx) }
	case Delete:
		return s.deleter(ctx)
	case DeleteOld:
		op = s.deleterOld(ctx)
	default:
		return nil, errors.New("no such operation of an index: " + s.cell.Op)
	}
	return func(int) func() error { return op }, nil
}

// some is the number of a row without a file.
func (s *indexSubject) some() uint64 {
	for {
		if n := 1 + rand.Uint64N(uint64(s.rows.Count)); !s.rows.HasFile(n) {
			return n
		}
	}
}

// stride is the distance of rows that are removed one after another: a prime, so
// that each comes once, and far enough for none to share a page.
const stride = 1_000_003

func (s *indexSubject) store(ctx context.Context) error {
	add := s.rows.Row(nil, s.next.Add(1))
	if rand.IntN(100) < s.cell.Dup {
		there := s.rows.Row(nil, s.some())
		add.Ref.Blob, add.Blob, add.Staged = there.Ref.Blob, there.Blob, false
	}
	_, err := s.index.Add(ctx, add)
	if err == nil {
		s.added.Add(1)
	}
	return err
}

func (s *indexSubject) ref(ctx context.Context) error {
	_, _, err := s.index.Ref(ctx, s.rows.ID(nil, s.some()))
	return err
}

func (s *indexSubject) list(ctx context.Context) error {
	filter := storage.RefFilter{SessionID: s.rows.Row(nil, s.some()).Ref.Metadata.SessionID}
	page, _, _, err := s.index.Refs(ctx, filter, storage.UUID{}, listed)
	if err == nil && len(page) == 0 {
		err = fmt.Errorf("session %s is empty", filter.SessionID)
	}
	return err
}

// deleter adds references, and returns what removes them.
func (s *indexSubject) deleter(ctx context.Context) (func(int) func() error, error) {
	first := s.next.Load() + 1
	n := int(s.cell.Time.Seconds() * removable)
	err := everywhere(n, func() error { return s.store(ctx) })
	s.added.Store(0)
	var at atomic.Uint64
	at.Store(first - 1)
	return func(int) func() error {
		return func() error {
			row := at.Add(1)
			if row >= first+uint64(n) {
				return bench.ErrUsedUp
			}
			return s.remove(ctx, row)
		}
	}, err
}

// deleterOld removes preloaded rows without files until there are none.
func (s *indexSubject) deleterOld(ctx context.Context) func() error {
	var at atomic.Uint64
	count := uint64(s.rows.Count)
	return func() error {
		for i := at.Add(1); i <= count; i = at.Add(1) {
			if row := 1 + i*stride%count; !s.rows.HasFile(row) {
				return s.remove(ctx, row)
			}
		}
		return bench.ErrUsedUp
	}
}

func (s *indexSubject) remove(ctx context.Context, row uint64) error {
	removal, err := s.index.Remove(ctx, s.rows.ID(nil, row))
	if err == nil && !removal.Found {
		err = fmt.Errorf("row %d is not there", row)
	}
	if err == nil {
		s.removed.Add(1)
	}
	return err
}

// preparers is how many goroutines prepare what is measured.
const preparers = 256

// everywhere calls fn n times from many goroutines.
func everywhere(n int, fn func() error) error {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	failures := make(chan error, preparers)
	for range preparers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := fn(); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failures)
	return <-failures
}
