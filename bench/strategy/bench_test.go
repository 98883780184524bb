package strategy_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
)

// benchBlobs is how many blobs the references to present blobs share.
const benchBlobs = 1000

// BenchmarkIndex measures the bare index, durable, with no bytes to make so:
// references to new blobs, and to blobs that are there.
func BenchmarkIndex(b *testing.B) {
	for _, s := range strategy.All() {
		for _, op := range []string{"new", "present"} {
			for _, writers := range []int{1, 16, 64} {
				b.Run(fmt.Sprintf("strategy=%s/op=%s/writers=%d", s.Name, op, writers), func(b *testing.B) {
					benchmarkAdd(b, s, op == "new", writers)
				})
			}
		}
	}
}

func benchmarkAdd(b *testing.B, s strategy.Strategy, fresh bool, writers int) {
	x := mustOpen(b, s, b.TempDir())
	defer func() { require.NoError(b, x.Close()) }()
	blobOf := func(n uint64) uint64 { return n }
	made := uint64(0)
	if !fresh {
		blobOf = func(n uint64) uint64 { return n % benchBlobs }
		made = benchBlobs
		addAll(b, x, writers, 0, made, blobOf)
	}
	b.ReportAllocs()
	b.ResetTimer()
	addAll(b, x, writers, made, made+uint64(b.N), blobOf)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	counters, err := x.Counters(context.Background())
	require.NoError(b, err)
	require.EqualValues(b, made+uint64(b.N), counters.Refs)
	mustVerify(b, x)
}

// addAll adds the references after one number up to another with that many
// writers.
func addAll(b *testing.B, x engine.Index, writers int, after, to uint64, blobOf func(n uint64) uint64) {
	var next atomic.Uint64
	next.Store(after)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for n := next.Add(1); n <= to; n = next.Add(1) {
				if err := addOne(x, n, blobOf(n)); err != nil {
					b.Errorf("add: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

func addOne(x engine.Index, n, blob uint64) error {
	_, err := x.Add(context.Background(), addition(n, blob))
	return err
}
