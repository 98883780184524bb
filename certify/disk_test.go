package certify_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify"
)

func TestMeasureDisk(t *testing.T) {
	d, err := certify.MeasureDisk(context.Background(), filepath.Join(t.TempDir(), "disk"), 30*time.Millisecond)
	require.NoError(t, err)
	for _, l := range []certify.Latency{d.DurableWrite, d.Overwrite, d.Append} {
		require.GreaterOrEqual(t, l.Samples, 20)
		require.Positive(t, l.P50)
		require.LessOrEqual(t, l.P50, l.P95)
		require.LessOrEqual(t, l.P95, l.P99)
		require.LessOrEqual(t, l.P99, l.Max)
	}
	require.NotEmpty(t, d.Why)
	require.NotNil(t, d.Concerns)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = certify.MeasureDisk(ctx, filepath.Join(t.TempDir(), "disk"), time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	var doing []string
	report, err := certify.Run(context.Background(), certify.Options{
		Dir: dir, Victim: victim(honest, ""), Duration: time.Second,
		Progress: func(what string, done float64) {
			doing = append(doing, what)
			require.LessOrEqual(t, done, 1.0)
		},
	})
	require.NoError(t, err)
	require.True(t, report.OK, "%+v", report.Violations)
	require.NotZero(t, report.Seed)
	require.NotZero(t, report.Kills.Rounds)
	require.NotZero(t, report.Consistency.Rounds)
	require.Equal(t, "measuring the disk", doing[0])
	require.Empty(t, report.Kept)
	requireEmpty(t, dir)
}

// The evidence of a broken promise is kept.
func TestRunFindsABrokenPromise(t *testing.T) {
	dir := t.TempDir()
	report, err := certify.Run(context.Background(), certify.Options{
		Dir: dir, Victim: victim("acknowledges what it did not store", ""), Duration: time.Second,
	})
	require.NoError(t, err)
	require.False(t, report.OK)
	require.Equal(t, certify.ViolationLost, report.Violations[0].Kind)
	require.DirExists(t, filepath.Join(report.Kept, "kills"))
	require.Equal(t, dir, filepath.Dir(report.Kept))
}

func TestRunIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	_, err := certify.Run(ctx, certify.Options{
		Dir: dir, Victim: victim(honest, ""), Duration: time.Hour,
		Progress: func(what string, _ float64) {
			if what == "consistency" {
				cancel()
			}
		},
	})
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, dir)
}

func TestRunRefusesWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := certify.Run(context.Background(), certify.Options{Dir: file, Victim: victim(honest, "")})
	require.ErrorContains(t, err, "not a directory")
	_, err = certify.Run(context.Background(), certify.Options{Dir: filepath.Join(dir, "none"), Victim: victim(honest, "")})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, filepath.Join(dir, "none"), "nothing is made where nothing is")
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
