package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

func init() { strict.Main() }

// strictCaseEnv names a directory that a failing case was saved in.
const strictCaseEnv = "MEDIABOLT_STRICT_CASE"

// strictCuts is how thoroughly the strict model is tried: how far cuts are
// apart, seeds per cut, workloads, and recoveries of each that are cut again, per
// mode.
type strictCuts struct {
	every, seeds  int
	workloads     []strictWorkload
	recoveries    int
	recoveryLimit time.Duration // for those of one workload; zero: none
	order         uint64        // added to the seed of what is tried; zero in forms that repeat
}

// strictWorkload is a workload, and how long its cuts may take; zero: no limit.
type strictWorkload struct {
	seed  uint64
	limit time.Duration
}

func strictProof(t *testing.T) strictCuts {
	t.Helper()
	fresh := freshSeed(t)
	switch os.Getenv(proofEnv) {
	case "long":
		// Every cut of one workload in one mode took 40 s, on two cores, and
		// those of 20 recoveries 37 s.
		return strictCuts{every: 1, seeds: 4, workloads: []strictWorkload{{1, 48 * time.Second}, {fresh, 18 * time.Second}},
			recoveries: 20, recoveryLimit: 8 * time.Second, order: fresh}
	case "short":
		return strictCuts{every: 12, seeds: 2, workloads: []strictWorkload{{seed: 1}, {seed: fresh}}, recoveries: 2}
	}
	return strictCuts{every: 40, seeds: 1, workloads: []strictWorkload{{seed: fresh}}, recoveries: 1}
}

// requireFUSE skips where a filesystem cannot be served.
func requireFUSE(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip.Proof(t, "needs root and /dev/fuse")
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

// syncMode is a configuration with a function in place of syncfs(2); nil: the
// store does without.
type syncMode func(engine.FileStoreConfig, func() error) engine.FileStoreConfig

// strictModes are the ways in which a store makes a group durable.
var strictModes = map[string]syncMode{
	"syncfs":    engine.WithSyncFS,
	"no syncfs": nil,
}

// After a cut at any event, whatever of the rest survives, the store keeps its
// promises; also when the recovery is cut.
func TestStrictCuts(t *testing.T) {
	requireFUSE(t)
	proof := strictProof(t)
	for name, sync := range strictModes {
		for _, w := range proof.workloads {
			t.Run(fmt.Sprintf("%s/%d", name, w.seed), func(t *testing.T) {
				run := &strict.Run{Seed: w.seed, SyncFS: sync, Scratch: scratch(t)}
				rec, err := run.Record(context.Background())
				require.NoError(t, err)
				defer func() { require.NoError(t, rec.Close()) }()
				tryCuts(t, rec, strict.Plan{Every: proof.every, Seeds: proof.seeds, Seed: w.seed + proof.order, Max: 3, Limit: w.limit})
				cutRecoveries(t, rec, proof, w.seed)
			})
		}
	}
}

// After a cut at any event of a workload of holds, what was acknowledged of them is
// so: what is held cannot be deleted, and what was released is no longer held.
func TestStrictCutsOfHolds(t *testing.T) { strictCutsOf(t, workload.RunHolds, 3) }

// After a cut at any event of a workload of erasures and reorganizations, what is left
// is there, what was erased is gone or there as a whole, and what was acknowledged has
// left no trace.
func TestStrictCutsOfMoves(t *testing.T) { strictCutsOf(t, workload.RunMoves, 6) }

// After a cut at any event of a workload of adoptions, what was adopted is found by
// where it came from, and nothing else.
func TestStrictCutsOfAdoptions(t *testing.T) { strictCutsOf(t, workload.RunAdoption, 12) }

// After a cut at any event of a workload of policies and expiry, an acknowledged policy
// is there, what an acknowledged Expire has ended is gone, and what was not due is there.
func TestStrictCutsOfRetention(t *testing.T) { strictCutsOf(t, workload.RunRetention, 3) }

// After a cut at any event of a workload of compactions the index is one file or the
// other, and has what was acknowledged.
func TestStrictCutsOfCompactions(t *testing.T) { strictCutsOf(t, workload.RunCompaction, 6) }

// After a cut at any event of a workload that loses and rebuilds its index, the store has
// every reference with all that it had, and the damaged index is set aside.
func TestStrictCutsOfRebuilds(t *testing.T) { strictCutsOf(t, workload.RunRebuild, 10) }

// After a cut at any event of a workload of backups, one that was acknowledged is whole,
// the last one is that, the new one, or refused, and another one makes it whole.
func TestStrictCutsOfBackups(t *testing.T) { strictCutsOf(t, workload.RunBackup, 24) }

// After a cut at any event of a workload with a restore, the restored store is refused, or
// whole and without what was erased since, and another restore makes it so.
func TestStrictCutsOfRestores(t *testing.T) { strictCutsOf(t, workload.RunRestore, 24) }

// After a cut at any event of a workload with an import, what was imported is as it was,
// and another import adds the rest.
func TestStrictCutsOfImports(t *testing.T) { strictCutsOf(t, workload.RunImport, 24) }

// After a cut at any event of a workload of scopes and quotas, bytes are shared within
// their scope alone, what is counted against users, sessions and the total is what they
// have, no quota is exceeded, and a store that was refused has left nothing.
func TestStrictCutsOfLimits(t *testing.T) { strictCutsOf(t, workload.RunLimits, 6) }

// strictCutsOf cuts a workload after each of its events, or after one of some but for
// the long and the short form.
func strictCutsOf(t *testing.T, use func(context.Context, workload.Target, uint64, *workload.Journal) error, some int) {
	t.Helper()
	requireFUSE(t)
	seed := freshSeed(t)
	plan := strict.Plan{Every: 1, Seeds: 4, Seed: seed, Max: 3}
	if os.Getenv(proofEnv) == "" {
		plan.Every, plan.Seeds = some, 2
	}
	run := &strict.Run{Seed: seed, Use: use, Scratch: scratch(t)}
	rec, err := run.Record(context.Background())
	require.NoError(t, err)
	defer func() { require.NoError(t, rec.Close()) }()
	tryCuts(t, rec, plan)
}

func tryCuts(t *testing.T, rec *strict.Recording, plan strict.Plan) {
	t.Helper()
	out, err := rec.Try(context.Background(), plan)
	require.NoError(t, err)
	t.Logf("%s: %d cuts after %d of %d events", howMany(out.Events, rec.Len()+1), out.Cuts, out.Events, rec.Len()+1)
	for _, f := range out.Failures {
		t.Errorf("%s\n\t%s=%s go test -run TestStrictCase -v ./engine", f.String(), strictCaseEnv, f.Case)
	}
}

// cutRecoveries cuts the recoveries from some cuts, and some recoveries from
// those once more.
func cutRecoveries(t *testing.T, rec *strict.Recording, proof strictCuts, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed+proof.order, 2))
	end, done := time.Now().Add(proof.recoveryLimit), 0
	for ; done < proof.recoveries && (proof.recoveryLimit == 0 || time.Now().Before(end)); done++ {
		depth := rec
		for range 2 {
			cut, choice := r.IntN(depth.Len()+1), strict.Choice{Keep: strict.Some, Seed: r.Uint64()}
			again, verdict, err := depth.Again(context.Background(), cut, choice)
			require.NoError(t, err)
			require.Empty(t, verdict.Violations, "recovery on the mount after event %d, %s survives", cut, choice)
			defer func() { require.NoError(t, again.Close()) }()
			tryCuts(t, again, strict.Plan{Every: max(1, proof.every/4), Seeds: 1, Seed: r.Uint64(), Limit: proof.recoveryLimit / 4})
			depth = again
		}
	}
	t.Logf("%d of %d recoveries cut", done, proof.recoveries)
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
