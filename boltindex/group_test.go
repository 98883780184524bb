package boltindex

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type groupItem struct{ ran atomic.Int32 }

func TestGroupRunsEveryItemOnce(t *testing.T) {
	var running atomic.Int32
	var groups atomic.Int32
	g := newGroup(16, func(items []*groupItem) {
		require.Equal(t, int32(1), running.Add(1), "two groups at once")
		require.LessOrEqual(t, len(items), 16)
		for _, it := range items {
			it.ran.Add(1)
		}
		groups.Add(1)
		running.Add(-1)
	})
	items := make([]groupItem, 2000)
	var wg sync.WaitGroup
	for i := range items {
		wg.Go(func() {
			require.NoError(t, g.do(t.Context(), &items[i]))
			require.Equal(t, int32(1), items[i].ran.Load(), "do returned before its group ran")
		})
	}
	wg.Wait()
	for i := range items {
		require.Equal(t, int32(1), items[i].ran.Load())
	}
}

func TestGroupIsShared(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	var sizes []int
	g := newGroup(100, func(items []*groupItem) {
		sizes = append(sizes, len(items))
		if len(sizes) == 1 {
			close(started)
			<-release
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.do(t.Context(), &groupItem{}) })
	<-started
	for range 10 {
		wg.Go(func() { _ = g.do(t.Context(), &groupItem{}) })
	}
	require.Eventually(t, func() bool { return g.waiting() == 10 }, 5*time.Second, time.Millisecond)
	close(release)
	wg.Wait()
	require.Equal(t, []int{1, 10}, sizes)
}

// Items whose context ends leave the queue, whoever leads at that moment, and
// the others still run.
func TestGroupWithdraw(t *testing.T) {
	g := newGroup(4, func(items []*groupItem) {
		for _, it := range items {
			it.ran.Add(1)
		}
	})
	for range 300 {
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				ctx := t.Context()
				if i%2 == 0 {
					c, cancel := context.WithCancel(ctx)
					go cancel()
					ctx = c
				}
				it := &groupItem{}
				err := g.do(ctx, it)
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					require.Zero(t, it.ran.Load(), "withdrawn and run all the same")
				} else {
					require.Equal(t, int32(1), it.ran.Load())
				}
			})
		}
		wg.Wait()
		require.False(t, g.busyNow())
	}
}

func (g *group[T]) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}

func (g *group[T]) busyNow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busy
}
