package engine

import (
	"iter"
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBounds is how many bounds the counts of a Latency have.
const LatencyBounds = lastPower - firstPower + 1

// LatencyBound is the i-th bound of Latency.Within: a power of two of
// nanoseconds, from 4.096 µs to 68.7 s.
func LatencyBound(i int) time.Duration { return 1 << (firstPower + i) }

// Latency is how long the calls of one kind took that succeeded since the store
// was opened. While calls go on, the numbers may be some calls apart.
type Latency struct {
	Count int64
	Sum   time.Duration
	Max   time.Duration // exact
	// P50, P95 and P99 are the durations that half, 95 and 99 % of the calls did
	// not exceed: at most 1/16 above the true ones. Everything up to the first
	// bound counts as that.
	P50, P95, P99 time.Duration
	// Within[i] is how many calls took no longer than LatencyBound(i).
	Within [LatencyBounds]int64
}

// Latencies are those of all kinds of calls.
type Latencies struct {
	Store        Latency // Store and StoreReader of new bytes, or of bytes that healed a blob
	StorePresent Latency // the same of bytes that were there
	Retrieve     Latency
	Open         Latency // without the reading
	Delete       Latency // of nothing, too
	Commit       Latency // of a group, with the sync of what it brings
}

// All goes through the latencies.
func (l *Latencies) All() iter.Seq2[Operation, *Latency] {
	return func(yield func(Operation, *Latency) bool) {
		_ = yield(OpStore, &l.Store) && yield(OpStorePresent, &l.StorePresent) && yield(OpRetrieve, &l.Retrieve) &&
			yield(OpOpen, &l.Open) && yield(OpDelete, &l.Delete) && yield(OpCommit, &l.Commit)
	}
}

// A histogram counts durations without a lock, in 16 buckets of equal width for
// each power of two of nanoseconds, one below the first and one above the last.
const (
	firstPower = 12
	lastPower  = 36
	finePower  = 4 // of the buckets between two powers
	buckets    = (lastPower-firstPower)<<finePower + 2
)

type histogram struct {
	counts   [buckets]atomic.Int64
	sum, max atomic.Int64
}

// bucketOf is the bucket whose bounds a duration is between, the upper one
// included.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 1) - 1)
	power := bits.Len64(v) - 1
	switch {
	case power < firstPower:
		return 0
	case power >= lastPower:
		return buckets - 1
	}
	return 1 + (power-firstPower)<<finePower + int(v>>(power-finePower))&(1<<finePower-1)
}

// boundOf is the upper bound of a bucket other than the last.
func boundOf(bucket int) time.Duration {
	if bucket == 0 {
		return 1 << firstPower
	}
	power, fine := firstPower+(bucket-1)>>finePower, (bucket-1)&(1<<finePower-1)
	return time.Duration(1<<finePower+fine+1) << (power - finePower)
}

func (h *histogram) observe(d time.Duration) {
	for before := h.max.Load(); int64(d) > before; before = h.max.Load() {
		if h.max.CompareAndSwap(before, int64(d)) {
			break
		}
	}
	h.sum.Add(int64(d))
	h.counts[bucketOf(d)].Add(1) // last, so that max bounds what is counted
}

// latency is what a histogram has counted so far.
func (h *histogram) latency() Latency {
	var counts [buckets]int64
	l := Latency{Sum: time.Duration(h.sum.Load())}
	for i := range counts {
		counts[i] = h.counts[i].Load()
		l.Count += counts[i]
	}
	l.Max = time.Duration(h.max.Load())
	ranks := [...]struct {
		quantile *time.Duration
		rank     int64
	}{{&l.P50, rank(l.Count, 50)}, {&l.P95, rank(l.Count, 95)}, {&l.P99, rank(l.Count, 99)}}
	var seen int64
	for i, n := range counts {
		for _, r := range ranks {
			if seen < r.rank && r.rank <= seen+n {
				*r.quantile = l.Max
				if i < buckets-1 {
					*r.quantile = min(boundOf(i), l.Max)
				}
			}
		}
		seen += n
		if i < buckets-1 && i&(1<<finePower-1) == 0 { // the last bucket before a power
			l.Within[i>>finePower] = seen
		}
	}
	return l
}

// rank is the place in order of the call that a percentile tells of.
func rank(count, percent int64) int64 { return (count*percent + 99) / 100 }
