package engine

import (
	"context"
	"sync"
	"time"
)

// pace holds readers, all together, to a number of bytes per second.
type pace struct {
	rate int64 // zero: no limit

	mu   sync.Mutex // guards next
	next time.Time  // when what has been read is paid for
}

// pay waits until n bytes more may be read, or for ctx to end. Time in which
// nobody reads is not saved up.
func (p *pace) pay(ctx context.Context, n int) error {
	if p.rate == 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	wait := p.next.Sub(now)
	p.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
