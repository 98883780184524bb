package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

func init() { strict.Main() }

// strictCaseEnv names a directory that a failing case was saved in.
const strictCaseEnv = "MEDIABOLT_STRICT_CASE"

// strictCuts is how thoroughly the strict model is tried: how far cuts are
// apart, seeds per cut, seeds of the workload, and recoveries that are cut
// again, per mode.
type strictCuts struct {
	every, seeds int
	workloads    []uint64
	recoveries   int
}

func strictProof(t *testing.T) strictCuts {
	t.Helper()
	fresh := freshSeed(t)
	switch os.Getenv(proofEnv) {
	case "long":
		return strictCuts{every: 1, seeds: 4, workloads: []uint64{1, fresh}, recoveries: 20}
	case "short":
		return strictCuts{every: 12, seeds: 2, workloads: []uint64{1, fresh}, recoveries: 2}
	}
	return strictCuts{every: 40, seeds: 1, workloads: []uint64{fresh}, recoveries: 1}
}

// requireFUSE skips where a filesystem cannot be served.
func requireFUSE(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip(t, "needs root and /dev/fuse")
	}
}

// scratchDir is a directory in memory.
const scratchDir = "/dev/shm"

// scratch is a directory in memory for a test.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratchDir, "mediabolt-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// strictModes are the ways in which a store makes a group durable.
var strictModes = map[string]func(engine.FileStoreConfig, func() error) engine.FileStoreConfig{
	"syncfs":    engine.WithSyncFS,
	"no syncfs": nil,
}

// After a cut at any event, whatever of the rest survives, the store keeps its
// promises; also when the recovery is cut.
func TestStrictCuts(t *testing.T) {
	requireFUSE(t)
	proof := strictProof(t)
	for name, sync := range strictModes {
		for _, seed := range proof.workloads {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				run := &strict.Run{Seed: seed, SyncFS: sync, Scratch: scratch(t)}
				rec, err := run.Record(context.Background())
				require.NoError(t, err)
				defer func() { require.NoError(t, rec.Close()) }()
				tryCuts(t, rec, strict.Plan{Every: proof.every, Seeds: proof.seeds, Seed: seed, Max: 3})
				cutRecoveries(t, rec, proof, seed)
			})
		}
	}
}

func tryCuts(t *testing.T, rec *strict.Recording, plan strict.Plan) {
	t.Helper()
	out, err := rec.Try(context.Background(), plan)
	require.NoError(t, err)
	t.Logf("%d events, %d cuts", rec.Len(), out.Cuts)
	for _, f := range out.Failures {
		t.Errorf("%s\n\t%s=%s go test -run TestStrictCase -v ./engine", f.String(), strictCaseEnv, f.Case)
	}
}

// cutRecoveries cuts the recoveries from some cuts, and some recoveries from
// those once more.
func cutRecoveries(t *testing.T, rec *strict.Recording, proof strictCuts, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	for range proof.recoveries {
		depth := rec
		for range 2 {
			cut, choice := r.IntN(depth.Len()+1), strict.Choice{Keep: strict.Some, Seed: r.Uint64()}
			again, verdict, err := depth.Again(context.Background(), cut, choice)
			require.NoError(t, err)
			require.Empty(t, verdict.Violations, "recovery on the mount after event %d, %s survives", cut, choice)
			defer func() { require.NoError(t, again.Close()) }()
			tryCuts(t, again, strict.Plan{Every: max(1, proof.every/4), Seeds: 1, Seed: r.Uint64()})
			depth = again
		}
	}
}

// TestStrictCase judges a case again that TestStrictCuts has saved.
func TestStrictCase(t *testing.T) {
	dir := os.Getenv(strictCaseEnv)
	if dir == "" {
		t.Skip(strictCaseEnv + " names no case")
	}
	run := &strict.Run{Scratch: scratch(t)}
	verdict, err := run.Replay(context.Background(), dir)
	require.NoError(t, err)
	require.Equal(t, []workload.Violation(nil), verdict.Violations)
}

// Every protocol that is broken on purpose breaks a promise after some cut under
// the strict model.
func TestStrictMutations(t *testing.T) {
	requireFUSE(t)
	for i, m := range mutations() {
		if strings.HasPrefix(m.name, "no fsync") {
			continue // see TestStrictHalfSyncs
		}
		if os.Getenv(proofEnv) == "" && i != len(mutations())-1 {
			continue // the quick form has one, the others all
		}
		t.Run(m.name, func(t *testing.T) {
			run := &strict.Run{Seed: 1, SyncFS: engine.WithSyncFS, Configure: m.configure, Scratch: scratch(t)}
			rec, err := run.Record(context.Background())
			require.NoError(t, err)
			defer func() { require.NoError(t, rec.Close()) }()
			for every := 16; ; every /= 4 {
				out, err := rec.Try(context.Background(), strict.Plan{Every: every, Seeds: 2, Seed: 1})
				require.NoError(t, err)
				t.Logf("every %d events: %d cuts, %d failed", every, out.Cuts, len(out.Failures))
				for _, f := range out.Failures {
					t.Log(f.String())
					require.NoError(t, os.RemoveAll(f.Case))
				}
				if len(out.Failures) > 0 {
					return
				}
				require.Greater(t, every, 1, "no cut notices")
			}
		})
	}
}
