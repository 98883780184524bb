package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/disk"
)

func TestPowerCutX(t *testing.T) {
	ctx := context.Background()
	d, err := disk.Start(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		start := time.Now()
		r, err := disk.Record(ctx, d, kind, 1, nil)
		require.NoError(t, err)
		t.Log(kind, r.Events, len(r.Journal.Ops()), time.Since(start))
		start = time.Now()
		n := 0
		for k := 1; k <= r.Events; k += r.Events / 40 {
			for _, c := range disk.Choices() {
				j, err := r.Cut(ctx, k, c)
				require.NoError(t, err)
				for _, v := range j.Violations {
					t.Error(r.Case(k, c), v)
				}
				if k%3 == 0 {
					t.Log(k, c, j.Chance, j.References(), j.Recovered, j.Recovery.Events)
				}
				require.NoError(t, j.Recovery.Drop())
				n++
			}
		}
		t.Log(kind, n, "cuts", time.Since(start)/time.Duration(n))
		require.NoError(t, r.Drop())
	}
}
