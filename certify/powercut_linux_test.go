package certify_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify"
	"github.com/mediabolt/mediabolt/certify/disk"
	"github.com/mediabolt/mediabolt/certify/skip"
)

func TestRunWithPowerCuts(t *testing.T) {
	if err := disk.Missing(); err != nil {
		skip.Proof(t, err.Error())
	}
	dir := t.TempDir()
	report, err := certify.Run(context.Background(), certify.Options{
		Dir: dir, Victim: victim(honest, ""), Duration: 3 * time.Second, PowerCut: true,
	})
	require.NoError(t, err)
	require.True(t, report.OK, "%+v", report.Violations)
	require.NotZero(t, report.PowerCut.Cuts)
	require.NotZero(t, report.PowerCut.Events)
	require.Equal(t, "ext4", report.PowerCut.Filesystem)
	requireEmpty(t, dir)
}

// What is missing is told before anything is made.
func TestPowerCutsNeedAProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	_, err := certify.Run(context.Background(), certify.Options{Dir: dir, Victim: victim(honest, ""), PowerCut: true})
	require.ErrorIs(t, err, certify.ErrNoPowerCut)
	if os.Geteuid() == 0 {
		require.ErrorContains(t, err, "install e2fsprogs")
	}
	requireEmpty(t, dir)
}
