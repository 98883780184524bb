package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
)

// inSession is how many references the session that is listed has.
const inSession = 1000

// sizesVariable has the tests of listing take stores of other sizes: two numbers
// of references, separated by a comma.
const sizesVariable = "MEDIABENCH_LIST_REFERENCES"

func mustOpenListed(tb testing.TB, references int) *engine.FileStore {
	tb.Helper()
	dir := tb.TempDir()
	require.NoError(tb, FillListed(context.Background(), dir, references, inSession))
	s, err := OpenStore(dir)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, s.Close()) })
	return s
}

// listQueries are queries of some references in a store of many. The rows of
// FillIndex are a millisecond apart, from 1970 on.
var listQueries = map[string]engine.Query{
	"session":              {SessionID: ListedSession},
	"session/order=newest": {SessionID: ListedSession, Order: engine.Newest},
	"time":                 {AddedFrom: time.UnixMilli(5000), AddedTo: time.UnixMilli(5000 + inSession)},
	"time/order=newest":    {AddedFrom: time.UnixMilli(5000), AddedTo: time.UnixMilli(5000 + inSession), Order: engine.Newest},
	"limit/order=newest":   {Limit: inSession, Order: engine.Newest},
}

// TestListScales requires that listing some references takes about the same time in
// a small and in a large store. The best rounds are compared: other work on the
// machine only slows one.
func TestListScales(t *testing.T) {
	small, large := 10_000, 100_000
	if sizes := os.Getenv(sizesVariable); sizes != "" {
		_, err := fmt.Sscanf(sizes, "%d,%d", &small, &large)
		require.NoError(t, err, sizesVariable)
	}
	stores := [2]*engine.FileStore{mustOpenListed(t, small), mustOpenListed(t, large)}
	const rounds, most = 60, 1.5
	for name, query := range listQueries {
		best := [2]time.Duration{time.Hour, time.Hour} // for a reference
		for range rounds {
			for i, s := range stores {
				begin := time.Now()
				listed, err := List(s, query, inSession)
				require.NoError(t, err)
				best[i] = min(best[i], time.Since(begin)/time.Duration(listed))
			}
		}
		ratio := float64(best[1]) / float64(best[0])
		t.Logf("%s: %v for each with %d references, %v with %d, ratio %.2f", name, best[0], small, best[1], large, ratio)
		require.LessOrEqual(t, ratio, most, name)
	}
}

func BenchmarkList(b *testing.B) {
	for _, references := range []int{10_000, 100_000} {
		s := mustOpenListed(b, references)
		for _, name := range slices.Sorted(maps.Keys(listQueries)) {
			b.Run(fmt.Sprintf("refs=%d/by=%s", references, name), func(b *testing.B) {
				b.ReportAllocs()
				listed := 0
				for b.Loop() {
					n, err := List(s, listQueries[name], inSession)
					require.NoError(b, err)
					listed += n
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(listed), "ns/ref")
			})
		}
	}
}
