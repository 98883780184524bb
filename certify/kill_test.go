package certify_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify"
)

func TestKillsOfAnHonestVictim(t *testing.T) {
	dir := t.TempDir()
	told := 0
	k := &certify.Killer{Dir: dir, Victim: victim(honest, dir), Seed: 3, Keep: 8, Work: 100 * time.Millisecond,
		Progress: func(r certify.KillReport) { told++; require.Equal(t, told, r.Rounds) }}
	report, broken, err := k.Run(context.Background(), 8, time.Time{})
	require.NoError(t, err)
	require.Empty(t, broken)
	require.Equal(t, 8, told)
	require.Equal(t, 7, report.Kills)
	require.Equal(t, 1, report.Closes)
	require.NotZero(t, report.Pauses)
	require.NotZero(t, report.Stored)
	require.Equal(t, 1, report.Full, "the last round is judged in full")
}

// A store that breaks a promise is found out, whichever one it is.
func TestKillsOfLiars(t *testing.T) {
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := &certify.Killer{Dir: dir, Victim: victim(name, dir), Seed: 3, Keep: 8, Work: 100 * time.Millisecond}
			report, broken, err := k.Run(context.Background(), 40, time.Time{})
			require.NoError(t, err)
			require.NotEmpty(t, broken)
			found := false
			for _, v := range broken {
				require.NotContains(t, v.Detail, "cannot lie")
				require.Equal(t, "kills", v.Part)
				require.Equal(t, report.Rounds-1, v.Round, "it ends with the round that found it")
				found = found || slices.Contains(lie.want, v.Kind)
			}
			require.True(t, found, "want %v: %+v", lie.want, broken)
		})
	}
}

func TestKillsEndWithTheirContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	k := &certify.Killer{Dir: dir, Victim: victim(honest, dir), Keep: 8,
		Progress: func(r certify.KillReport) { cancel() }}
	_, broken, err := k.Run(ctx, 1000, time.Time{})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, broken)
}

func TestConsistency(t *testing.T) {
	c := &certify.Consistency{Dir: t.TempDir(), Seed: 3, Keep: 8, Slice: 100 * time.Millisecond}
	report, broken, err := c.Run(context.Background(), 3, time.Time{})
	require.NoError(t, err)
	require.Empty(t, broken)
	require.Equal(t, 3, report.Rounds)
	require.GreaterOrEqual(t, report.Verified, 3)
	require.NotZero(t, report.Stored)
}
