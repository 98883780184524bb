package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ErrUsedUp is what an operation returns when its writer has nothing left to
// do: that writer ends, and this is no failure.
var ErrUsedUp = errors.New("nothing left to do")

// The histogram tells latencies up to maxLatency apart by one per cent.
const (
	maxLatency    = 2 * time.Minute
	latencyDigits = 2
)

// Sample is what came of calling an operation again and again.
type Sample struct {
	Ops     int64
	Elapsed time.Duration
	// Latency holds the nanoseconds of every call. The next call of a writer
	// begins when the one before it has returned, so a stall is counted once for
	// each writer that it stopped.
	Latency *hdrhistogram.Histogram
}

// PerSecond is operations per second.
func (s *Sample) PerSecond() float64 { return float64(s.Ops) / s.Elapsed.Seconds() }

// Rate runs op in writers goroutines, each with its own state from start, for
// about d or until ctx ends. The first error ends it, and so does ctx's.
func Rate(ctx context.Context, writers int, d time.Duration, start func(writer int) func() error) (*Sample, error) {
	ops := make([]func() error, writers)
	latencies := make([]*hdrhistogram.Histogram, writers)
	for w := range ops {
		ops[w] = start(w)
		latencies[w] = newHistogram()
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	begin := time.Now()
	for w := range writers {
		wg.Go(func() {
			if err := repeat(&stop, ops[w], latencies[w]); err != nil {
				once.Do(func() { failure = err })
				stop.Store(true)
			}
		})
	}
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	unhook := context.AfterFunc(ctx, func() { stop.Store(true) })
	wg.Wait()
	timer.Stop()
	unhook()
	s := &Sample{Elapsed: time.Since(begin), Latency: newHistogram()}
	for _, h := range latencies {
		s.Latency.Merge(h)
	}
	s.Ops = s.Latency.TotalCount()
	if failure == nil {
		failure = ctx.Err()
	}
	return s, failure
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(maxLatency), latencyDigits)
}

// repeat calls op until stop is set, and notes how long each call took.
func repeat(stop *atomic.Bool, op func() error, latency *hdrhistogram.Histogram) error {
	for !stop.Load() {
		begin := time.Now()
		if err := op(); errors.Is(err, ErrUsedUp) {
			return nil
		} else if err != nil {
			return err
		}
		if err := latency.RecordValue(min(int64(time.Since(begin)), int64(maxLatency))); err != nil {
			return err
		}
	}
	return nil
}
