package cell

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/bench"
	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// gcPercent is GOGC of every cell: with the small heap of a benchmark the
// collector would otherwise run for every third megabyte.
const gcPercent = 1600

// subject is what a cell calls.
type subject struct {
	start    func(writer int) func() error
	counters func(context.Context) (storage.Counters, error) // nil: a floor
	commits  func() (n int64, by string)
	close    func() error
	// added and removed count references, to be compared with the counters.
	added, removed atomic.Int64
}

func open(ctx context.Context, c *Cell, dir string) (*subject, error) {
	switch c.Scope {
	case Floor:
		return openFloor(c, dir)
	case Index:
		return openIndex(ctx, c, dir)
	case Engine:
		return openEngine(ctx, c, dir)
	}
	return nil, errors.New("no such scope: " + c.Scope)
}

func measure(ctx context.Context, c *Cell, dir string) (*Result, error) {
	debug.SetGCPercent(gcPercent)
	if c.Op == Opening {
		return measureOpening(ctx, c, dir)
	}
	if c.isPass() {
		return measurePass(ctx, c, dir)
	}
	s, err := open(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	r := &Result{Cell: *c}
	if err := r.run(ctx, c, s, dir); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return r, r.finish(ctx, s, dir)
}

func (r *Result) run(ctx context.Context, c *Cell, s *subject, dir string) error {
	before, err := s.count(ctx)
	if err != nil {
		return err
	}
	var commits int64
	if s.commits != nil {
		commits, _ = s.commits()
	}
	syncAll()
	resetRSS()
	if r.ProcessWritten, r.DeviceWritten, err = written(dir); err != nil {
		return err
	}
	m := startMeter()
	sample, err := bench.Rate(ctx, c.Writers, c.Time, s.start)
	m.end()
	if err != nil {
		return err
	}
	if sample.Ops == 0 {
		return errors.New("nothing was done")
	}
	r.Ops, r.Seconds, r.PerSecond = sample.Ops, sample.Elapsed.Seconds(), sample.PerSecond()
	at := sample.Latency.ValueAtQuantile
	r.Latency = Latency{P50: at(50), P95: at(95), P99: at(99), P999: at(99.9), Max: sample.Latency.Max()}
	r.AllocsPerOp = float64(m.allocs) / float64(sample.Ops)
	r.HeapPeak, r.HeapLive, r.RSSPeak = m.heap, m.live, rssPeak()
	if s.commits != nil {
		n, by := s.commits()
		r.Commits, r.CommitsBy = n-commits, by
	}
	after, err := s.count(ctx)
	if err != nil {
		return err
	}
	r.References, r.Stored = after.Refs, after.PhysicalBytes-before.PhysicalBytes
	if s.counters == nil && c.Op == Create {
		r.Stored = r.Ops * int64(c.Size)
	}
	if got, want := after.Refs-before.Refs, s.added.Load()-s.removed.Load(); got != want {
		return fmt.Errorf("the index counts %d references more, the calls were for %d", got, want)
	}
	return nil
}

// finish closes the subject, and takes what can be told afterwards.
func (r *Result) finish(_ context.Context, s *subject, dir string) error {
	if err := s.close(); err != nil {
		return err
	}
	syncAll()
	process, device, err := written(dir)
	if err != nil {
		return err
	}
	r.ProcessWritten, r.DeviceWritten = process-r.ProcessWritten, device-r.DeviceWritten
	if s.counters != nil {
		r.IndexDisk, err = room(filepath.Join(dir, blobs.ControlDir))
	}
	return err
}

func (s *subject) count(ctx context.Context) (storage.Counters, error) {
	if s.counters == nil {
		return storage.Counters{}, nil
	}
	return s.counters(ctx)
}
