package engine_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
)

func init() { strict.Main() }

func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "mediabolt-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func TestStrictVertical(t *testing.T) {
	for _, syncfs := range []bool{true, false} {
		run := &strict.Run{Seed: 1, Scratch: scratch(t)}
		if syncfs {
			run.SyncFS = engine.WithSyncFS
		}
		start := time.Now()
		rec, err := run.Record(context.Background())
		require.NoError(t, err)
		t.Log(rec.Len(), time.Since(start))
		start = time.Now()
		out, err := rec.Try(context.Background(), strict.Plan{Every: 1, Seeds: 4, Max: 5})
		require.NoError(t, err)
		t.Log(out.Cuts, time.Since(start))
		for _, f := range out.Failures {
			t.Log(f.String(), f.Case)
		}
	}
}
