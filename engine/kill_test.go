package engine_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify"
	"github.com/mediabolt/mediabolt/engine"
)

// victimVariable makes a run of this test binary a process that is to be
// killed, and runs no tests.
const victimVariable = "MEDIABOLT_KILL_VICTIM"

func init() {
	if os.Getenv(victimVariable) == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := certify.Victim(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func newVictim() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err) // there is no test without
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	return cmd
}

// killForm is how much killing a form of the proof does, for each seed.
type killForm struct {
	rounds int           // at most
	time   time.Duration // at most; 0: no bound
	work   time.Duration // of a victim, at most
	keep   int           // references of each of its goroutines
	calm   time.Duration // for rounds without kills
	fixed  []uint64      // seeds, beside a fresh one
}

// killForms are the forms by MEDIABOLT_PROOF. In the shortest, seven of eight
// rounds end with a kill, so that there are 50 of them.
var killForms = map[string]killForm{
	"":      {rounds: 58, work: 120 * time.Millisecond, keep: 12, calm: time.Second},
	"short": {rounds: math.MaxInt, time: 14 * time.Second, keep: 24, calm: 4 * time.Second, fixed: []uint64{1}},
	"long":  {rounds: math.MaxInt, time: 75 * time.Second, keep: 96, calm: 20 * time.Second, fixed: []uint64{1}},
}

// eachKillSeed runs a test for every seed of the form that is asked for.
func eachKillSeed(t *testing.T, test func(t *testing.T, form killForm, seed uint64)) {
	form, known := killForms[os.Getenv("MEDIABOLT_PROOF")]
	require.True(t, known, "MEDIABOLT_PROOF is short, long or not set")
	fresh := rand.Uint64()
	if s := os.Getenv("MEDIABOLT_PROOF_SEED"); s != "" {
		var err error
		fresh, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	for _, seed := range append(form.fixed, fresh) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { test(t, form, seed) })
	}
}

// Processes are killed, paused and closed at random moments, again and again,
// on one store that 64 goroutines work on: they store, delete, hold and erase, within
// quotas and in scopes.
func TestKill(t *testing.T) {
	eachKillSeed(t, func(t *testing.T, form killForm, seed uint64) {
		k := &certify.Killer{Dir: t.TempDir(), Victim: newVictim, Seed: seed, Keep: form.keep, Work: form.work}
		var until time.Time
		if form.time > 0 {
			until = time.Now().Add(form.time)
		}
		report, broken, err := k.Run(context.Background(), form.rounds, until)
		t.Logf("%+v", report)
		require.NoError(t, err)
		require.Empty(t, broken)
		require.NotZero(t, report.InFlight, "no round interrupted anything")
		require.NotZero(t, report.References)
		if form.rounds < math.MaxInt {
			require.GreaterOrEqual(t, report.Kills, 50)
		} else {
			require.NotZero(t, report.Spared, "no hold refused anything")
			require.NotZero(t, report.Erased, "nothing was erased")
			require.NotZero(t, report.Limited, "no limit refused anything")
		}
		requireSettled(t, engine.FileStoreConfig{BaseDir: k.Dir, EnableDeduplication: true})
	})
}

// The same goroutines without a kill: what they did is there, and is there
// again after the store was closed and opened.
func TestConsistency(t *testing.T) {
	eachKillSeed(t, func(t *testing.T, form killForm, seed uint64) {
		c := &certify.Consistency{Dir: t.TempDir(), Seed: seed, Keep: form.keep, Slice: time.Second / 2}
		report, broken, err := c.Run(context.Background(), math.MaxInt, time.Now().Add(form.calm))
		t.Logf("%+v", report)
		require.NoError(t, err)
		require.Empty(t, broken)
		require.NotZero(t, report.References)
	})
}

// requireSettled requires that nothing is left to recover in a closed store.
func requireSettled(t *testing.T, config engine.FileStoreConfig) {
	t.Helper()
	f := mustOpen(t, config)
	require.Empty(t, leftInStaging(t, config.BaseDir))
	require.NoError(t, f.Close())
}
