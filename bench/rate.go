package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// Rate runs op in writers goroutines, each with its own state from start, for
// about d, and returns operations per second. The first error ends it.
func Rate(writers int, d time.Duration, start func(writer int) func() error) (float64, error) {
	ops := make([]func() error, writers)
	for w := range ops {
		ops[w] = start(w)
	}
	var done atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	begin := time.Now()
	for w := range writers {
		wg.Go(func() {
			for !stop.Load() {
				if err := ops[w](); err != nil {
					once.Do(func() { failure = err })
					stop.Store(true)
					return
				}
				done.Add(1)
			}
		})
	}
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	wg.Wait()
	timer.Stop()
	return float64(done.Load()) / time.Since(begin).Seconds(), failure
}
