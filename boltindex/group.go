package boltindex

import (
	"context"
	"slices"
	"sync"
)

// group lets concurrent callers share one costly step. Whoever finds the step
// idle runs it for everybody who waits; the next group forms while it runs.
// There is no timer, so a lone caller never waits for company. Groups run one
// at a time, in order of arrival.
type group[T any] struct {
	run func(items []T)
	max int

	mu    sync.Mutex // guards the rest; never held while run runs
	queue []*waiter[T]
	busy  bool // somebody leads, or was told to
}

type waiter[T any] struct {
	item T
	wake chan signal // of capacity 1
}

type signal int

const (
	done signal = iota // another caller ran the item
	lead               // run the next group yourself
)

// newGroup returns a group that calls run with 1 to max items at a time. Results
// go through the items themselves: run has returned when do returns nil.
func newGroup[T any](max int, run func(items []T)) *group[T] {
	return &group[T]{run: run, max: max}
}

// do adds item to a group and returns when that group has run. When ctx ends
// before the group starts, the item is withdrawn and do returns ctx's error;
// once the group has started, do waits for it.
func (g *group[T]) do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &waiter[T]{item: item, wake: make(chan signal, 1)}
	g.mu.Lock()
	g.queue = append(g.queue, w)
	wait := g.busy
	g.busy = true
	g.mu.Unlock()
	if wait {
		select {
		case s := <-w.wake:
			if s == done {
				return nil
			}
		case <-ctx.Done():
			if g.withdraw(w) {
				return ctx.Err()
			}
			<-w.wake
			return nil
		}
	}
	g.leadOne(w)
	return nil
}

// leadOne runs the group at the head of the queue, of which w is part, then
// hands the lead on.
func (g *group[T]) leadOne(w *waiter[T]) {
	g.mu.Lock()
	n := min(len(g.queue), g.max)
	members := g.queue[:n:n]
	g.queue = g.queue[n:]
	g.mu.Unlock()

	items := make([]T, n)
	for i, m := range members {
		items[i] = m.item
	}
	g.run(items)
	for _, m := range members {
		if m != w {
			m.wake <- done
		}
	}
	g.mu.Lock()
	g.passOn()
	g.mu.Unlock()
}

// passOn makes the head of the queue the next leader. The caller holds mu.
func (g *group[T]) passOn() {
	if len(g.queue) == 0 {
		g.busy = false
		g.queue = nil
		return
	}
	g.queue[0].wake <- lead
}

// withdraw takes w out of the queue and says whether it was still there.
func (g *group[T]) withdraw(w *waiter[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.queue, w)
	if i < 0 {
		return false
	}
	g.queue = slices.Delete(slices.Clone(g.queue), i, i+1)
	select {
	case <-w.wake: // w had just been told to lead
		g.passOn()
	default:
	}
	return true
}
