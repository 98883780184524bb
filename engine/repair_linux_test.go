package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A power cut after any event of a repair, and of restoring what it has moved,
// whatever of the rest survives, leaves every file in its place or in the
// quarantine, with its line; another repair goes on.
func TestRepairPowerCut(t *testing.T) {
	requireFUSE(t)
	seed := freshSeed(t)
	for name, sync := range strictModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := scratch(t)
			config, before := mangle(t, filepath.Join(from, "store"))
			events := recordRepair(t, from, sync)
			random := rand.New(rand.NewPCG(seed, 0))
			start, tried := time.Now(), 0
			for _, cut := range random.Perm(len(events) + 1) {
				if tried > 0 && time.Since(start) > repairBudget() {
					break
				}
				for _, choice := range []strict.Choice{{Keep: strict.Nothing}, {Keep: strict.Some, Seed: random.Uint64()}, {Keep: strict.Some, Seed: random.Uint64()}} {
					model, err := strict.Read(from)
					require.NoError(t, err)
					for i := range events[:cut] {
						model.Apply(&events[i])
					}
					left := scratch(t)
					require.NoError(t, model.Survive(choice).Write(left))
					config.BaseDir = filepath.Join(left, "store")
					t.Logf("cut after %d of %d events, %s survives", cut, len(events), choice)
					requireGoesOn(t, config, before)
					require.NoError(t, os.RemoveAll(left))
				}
				tried++
			}
			t.Logf("%s: cuts after %d of %d events", howMany(tried, len(events)+1), tried, len(events))
		})
	}
}

// repairBudget is how long cuts in one mode, or faults of one kind, are tried: in
// the longest form nearly all, on two cores to itself.
func repairBudget() time.Duration {
	switch os.Getenv(proofEnv) {
	case "long":
		return time.Minute
	case "short":
		return 8 * time.Second
	}
	return 3 * time.Second
}

// recordRepair repairs the store below a directory, on a strict filesystem, puts
// back what it can, and answers every event.
func recordRepair(t *testing.T, from string, sync syncMode) []strict.Event {
	t.Helper()
	dir := scratch(t)
	record := filepath.Join(scratch(t), "events")
	mount, err := strict.New(dir, from, record)
	require.NoError(t, err)
	config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true, NoSyncFS: sync == nil}
	if sync != nil {
		config = sync(config, mount.SyncFS)
	}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	done := mustRepair(t, f, dropAll)
	require.Len(t, done, 4, "%v", done)
	batch := quarantined(t, f)[0].Batch
	for _, err := range f.RestoreQuarantine(context.Background(), batch) {
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	require.NoError(t, mount.Close())
	events, err := strict.ReadEvents(record)
	require.NoError(t, err)
	return events
}

// The nth call of a repair fails: what failed says so, nothing is lost, also when
// the power is cut then, and another repair goes on.
func TestRepairFaultAtEveryCall(t *testing.T) {
	requireFUSE(t)
	kinds := []struct {
		fault faulty.Fault
		is    error
	}{
		{faulty.Fault{Errno: syscall.EIO, Changes: true}, storage.ErrIO},
		{faulty.Fault{Errno: syscall.ENOSPC, Changes: true, Sticky: true}, storage.ErrDiskSpace},
	}
	random := rand.New(rand.NewPCG(freshSeed(t), 0))
	for _, k := range kinds {
		calls, _ := repairWithFault(t, faulty.Fault{Changes: true}, nil)
		start, tried, hits := time.Now(), 0, map[string]int{}
		for _, n := range random.Perm(calls) {
			if tried > 0 && time.Since(start) > repairBudget() {
				break
			}
			k.fault.At = n + 1
			_, hit := repairWithFault(t, k.fault, k.is)
			hits[hit]++
			tried++
		}
		t.Logf("%s: %v: %d of %d calls failed: %v", howMany(tried, calls), k.fault.Errno, tried, calls, hits)
	}
}

// repairWithFault repairs a store while a call fails.
func repairWithFault(t *testing.T, fault faulty.Fault, is error) (calls int, hit string) {
	t.Helper()
	mount, err := faulty.New(scratch(t), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, mount.Close()) }()
	config, before := mangle(t, filepath.Join(mount.Dir, "store"))
	config.NoSyncFS = true
	require.NoError(t, mount.SyncFS())
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	plan := mustPlan(t, f, dropAll)
	require.NoError(t, mount.Set(fault))
	failed := 0
	heard := func(err error) {
		if err == nil {
			return
		}
		failed++
		require.NotNil(t, is, "fails without a fault: %v", err)
		if !errors.Is(err, storage.ErrInDoubt) { // which says that the store must be reopened
			require.ErrorIs(t, err, is)
		}
	}
	for result, err := range f.Repair(context.Background(), plan) {
		heard(err)
		heard(result.Err)
	}
	told, err := mount.Told()
	require.NoError(t, err)
	require.NoError(t, mount.Set(faulty.Fault{}))
	requireKept(t, config.BaseDir, before)
	left := scratch(t)
	require.NoError(t, mount.Cut(left, strict.Choice{Keep: strict.Nothing}))
	_ = f.Close() // after a fault it may say what it could not make durable
	requireGoesOn(t, config, before)
	config.BaseDir = filepath.Join(left, "store")
	requireGoesOn(t, config, before)
	return told.Calls, told.Hit
}
