package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/plan"
	"github.com/mediabolt/mediabolt/bench/strategy"
)

// TestProfiles checks that no cell is there twice, that each names a strategy,
// and that a store of ten million references is filled once.
func TestProfiles(t *testing.T) {
	for _, profile := range plan.Names {
		series, err := plan.Profile(profile)
		require.NoError(t, err)
		seen := map[string]bool{}
		var last cell.Cell
		fills := map[int]int{}
		for _, s := range series {
			for _, c := range s.Cells {
				name := c.Series + " " + c.Name()
				require.False(t, seen[name], "%s: %s twice", profile, name)
				seen[name] = true
				require.Positive(t, c.Time)
				if c.Scope != cell.Floor {
					_, known := strategy.Named(c.Index)
					require.True(t, known, name)
				}
				if !last.LeavesFor(&c) {
					fills[c.Refs]++
				}
				last = c
			}
		}
		require.LessOrEqual(t, fills[10_000_000], 1, profile)
		require.LessOrEqual(t, fills[1_000_000], 4, profile)
	}
	_, err := plan.Profile("none")
	require.Error(t, err)
}

// TestFullHasEveryDimension checks what the profiles together must vary.
func TestFullHasEveryDimension(t *testing.T) {
	ops, sizes, writers, dups, refs, indexes := map[string]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}, map[string]bool{}
	for _, profile := range []string{"full", "scale"} {
		series, err := plan.Profile(profile)
		require.NoError(t, err)
		for _, s := range series {
			for _, c := range s.Cells {
				if c.Scope == cell.Engine {
					ops[c.Op], sizes[c.Size], writers[c.Writers], dups[c.Dup] = true, true, true, true
				}
				refs[c.Refs], indexes[c.Index] = true, true
			}
		}
	}
	for _, op := range []string{cell.Store, cell.StoreText, cell.Retrieve, cell.Open, cell.DeleteOld, cell.Mixed, cell.List, cell.Opening, cell.Verify, cell.Backup, cell.Rebuild} {
		require.True(t, ops[op], op)
	}
	for _, c := range []struct {
		of   map[int]bool
		want []int
	}{
		{sizes, []int{4 << 10, 100 << 10, 1 << 20, 16 << 20}}, {writers, []int{1, 16, 64, 256}}, {dups, []int{0, 50, 90}},
		{refs, []int{0, 10_000, 100_000, 1_000_000, 10_000_000}},
	} {
		for _, n := range c.want {
			require.True(t, c.of[n], n)
		}
	}
	for _, s := range strategy.All() {
		require.True(t, indexes[s.Name], s.Name)
	}
}
