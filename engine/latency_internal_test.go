package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every duration is in the bucket whose bounds it is between, and the bounds are
// never more than 1/16 apart.
func TestBucketsBoundDurations(t *testing.T) {
	require.Equal(t, LatencyBound(0), boundOf(0))
	require.Equal(t, LatencyBound(LatencyBounds-1), boundOf(buckets-2))
	for b := 1; b < buckets-1; b++ {
		low, high := boundOf(b-1), boundOf(b)
		require.Less(t, low, high)
		require.LessOrEqual(t, float64(high-low), float64(low)/16)
		require.Equal(t, b-1, bucketOf(low))
		require.Equal(t, b, bucketOf(low+1))
		require.Equal(t, b, bucketOf(high))
	}
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, LatencyBound(0)} {
		require.Zero(t, bucketOf(d))
	}
	for _, d := range []time.Duration{LatencyBound(LatencyBounds-1) + 1, math.MaxInt64} {
		require.Equal(t, buckets-1, bucketOf(d))
	}
}

func TestLatencyOfKnownDurations(t *testing.T) {
	var h histogram
	require.Zero(t, h.latency())
	r := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var sum time.Duration
	for range 10_000 {
		d := time.Duration(math.Exp(r.Float64()*17 + 6)) // 0.4 µs to 9.7 s
		h.observe(d)
		all = append(all, d)
		sum += d
	}
	slices.Sort(all)
	l := h.latency()
	require.EqualValues(t, len(all), l.Count)
	require.Equal(t, sum, l.Sum)
	require.Equal(t, all[len(all)-1], l.Max)
	for _, q := range []struct {
		got     time.Duration
		percent int
	}{{l.P50, 50}, {l.P95, 95}, {l.P99, 99}} {
		want := all[len(all)*q.percent/100-1]
		require.GreaterOrEqual(t, q.got, want, "p%d", q.percent)
		require.LessOrEqual(t, q.got, want+want/16+1, "p%d", q.percent)
	}
	for i, got := range l.Within {
		want, _ := slices.BinarySearch(all, LatencyBound(i)+1)
		require.EqualValues(t, want, got, "within %s", LatencyBound(i))
	}
}

func TestLatencyBeyondTheLastBound(t *testing.T) {
	var h histogram
	h.observe(time.Hour)
	l := h.latency()
	require.Equal(t, Latency{Count: 1, Sum: time.Hour, Max: time.Hour, P50: time.Hour, P95: time.Hour, P99: time.Hour}, l)
}

func TestLatencyCountsEveryGoroutine(t *testing.T) {
	var h histogram
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 1000 {
				h.observe(time.Duration(g*1000+i) * time.Microsecond)
				if l := h.latency(); l.P99 > l.Max || l.Count == 0 {
					t.Errorf("%+v", l)
				}
			}
		})
	}
	all.Wait()
	l := h.latency()
	require.EqualValues(t, 8000, l.Count)
	require.Equal(t, 7999*time.Microsecond, l.Max)
}

// What every call pays for its latency, without a listener: two looks at the
// clock and the count.
func BenchmarkObserve(b *testing.B) {
	o := newObserver(&FileStoreConfig{})
	var blob Blob
	b.Run("goroutines=1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.opened(time.Now(), nil, &blob, nil)
		}
	})
	b.Run("goroutines=many", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				o.opened(time.Now(), nil, &blob, nil)
			}
		})
	})
	require.Positive(b, o.open.latency().Count)
}
