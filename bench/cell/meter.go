package cell

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// meter follows the memory of a process.
type meter struct {
	stop       chan struct{}
	done       sync.WaitGroup
	allocs     int64
	heap, live int64
}

// meterPause is between two looks at the heap.
const meterPause = 5 * time.Millisecond

func startMeter() *meter {
	m := &meter{stop: make(chan struct{})}
	s := readHeap()
	m.allocs = s.allocs
	m.done.Go(func() {
		for {
			s := readHeap()
			m.heap, m.live = max(m.heap, s.heap), max(m.live, s.live)
			select {
			case <-m.stop:
				return
			case <-time.After(meterPause):
			}
		}
	})
	return m
}

// end stops the meter; allocs are those since its start.
func (m *meter) end() {
	m.allocs = readHeap().allocs - m.allocs
	close(m.stop)
	m.done.Wait()
	// A short cell may have gone without a collection.
	runtime.GC()
	m.live = max(m.live, readHeap().live)
}

type heap struct{ allocs, heap, live int64 }

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	at := func(i int) int64 { return int64(s[i].Value.Uint64()) }
	return heap{allocs: at(0) + at(1), heap: at(2), live: at(3)}
}
