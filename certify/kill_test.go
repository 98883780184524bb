package certify_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify"
)

func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &certify.Killer{Dir: t.TempDir(), Victim: victim, Seed: seed, Keep: 32,
		Progress: func(r certify.KillReport) { t.Logf("%+v", r) }}
	report, broken, err := k.Run(context.Background(), 24, time.Time{})
	require.NoError(t, err)
	require.Empty(t, broken)
	require.Equal(t, 24, report.Rounds)
}

func TestConsistency(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &certify.Consistency{Dir: t.TempDir(), Seed: seed, Keep: 32, Slice: 500 * time.Millisecond,
		Progress: func(r certify.ConsistencyReport) { t.Logf("%+v", r) }}
	_, broken, err := c.Run(context.Background(), 3, time.Time{})
	require.NoError(t, err)
	require.Empty(t, broken)
}
