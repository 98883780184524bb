package engine_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
)

// newest is the format that this program writes.
const newest = 4

// oldStore is a store of format 3, as a killed process left it, in a directory, and what
// it holds.
func oldStore(t testing.TB, dir string) (want []goldenEntry) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldenDir, "3.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &want))
	unpack(t, filepath.Join(goldenDir, "3.tar.gz"), dir)
	return want
}

// requireMigrated requires that a store opens in the newest format with everything it
// held, and that the copy of its old index is whole, if there is one.
func requireMigrated(t *testing.T, dir string, want []goldenEntry) {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, NoCreate: true})
	require.NoError(t, err)
	require.Equal(t, want, goldenEntries(t, f))
	require.Empty(t, damage(t, f))
	require.NoError(t, f.Close())
	require.EqualValues(t, newest, formatOf(t, dir))
	requireWayBack(t, dir, want)
	ctl, err := os.ReadDir(filepath.Join(dir, ".mediabolt"))
	require.NoError(t, err)
	for _, e := range ctl {
		require.False(t, strings.HasSuffix(e.Name(), ".tmp"), "%s is left over", e.Name())
	}
}

// requireWayBack goes back to the copy of the old index, as boltindex/migrate.go says,
// and forth again.
func requireWayBack(t *testing.T, dir string, want []goldenEntry) {
	t.Helper()
	back := scratch(t)
	require.NoError(t, copyTree(dir, filepath.Join(back, "store")))
	ctl := filepath.Join(back, "store", ".mediabolt")
	for _, name := range []string{"index.sums", "log.0", "log.1"} {
		require.NoError(t, os.Remove(filepath.Join(ctl, name)))
	}
	require.NoError(t, os.Rename(filepath.Join(ctl, "index.db.format-3"), filepath.Join(ctl, "index.db")))
	require.EqualValues(t, 3, formatOf(t, filepath.Join(back, "store")))
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: filepath.Join(back, "store"), Sync: engine.SyncNone})
	require.NoError(t, err)
	require.Equal(t, want, goldenEntries(t, f))
	require.NoError(t, f.Close())
	require.NoError(t, os.RemoveAll(back))
}

// A power cut, or a kill, after any event of the opening that brings an index up to date
// leaves the old format or the new one; the next opening has the new one, with everything
// in it, and a whole copy of the old.
func TestMigrationPowerCut(t *testing.T) {
	requireFUSE(t)
	seed := freshSeed(t)
	for name, sync := range strictModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := scratch(t)
			want := oldStore(t, filepath.Join(from, "store"))
			events := recordMigration(t, from, sync)
			random := rand.New(rand.NewPCG(seed, 0))
			start, tried := time.Now(), 0
			for _, cut := range random.Perm(len(events) + 1) {
				if tried > 0 && time.Since(start) > migrationBudget() {
					break
				}
				for _, choice := range []strict.Choice{{Keep: strict.Nothing}, {Keep: strict.Everything}, {Keep: strict.Some, Seed: random.Uint64()}} {
					model, err := strict.Read(from)
					require.NoError(t, err)
					for i := range events[:cut] {
						model.Apply(&events[i])
					}
					left := scratch(t)
					require.NoError(t, model.Survive(choice).Write(left))
					t.Logf("cut after %d of %d events, %s survives", cut, len(events), choice)
					requireMigrated(t, filepath.Join(left, "store"), want)
					require.NoError(t, os.RemoveAll(left))
				}
				tried++
			}
			t.Logf("%s: cuts after %d of %d events", howMany(tried, len(events)+1), tried, len(events))
		})
	}
}

// migrationBudget is how long cuts in one mode are tried, and four times as long as
// faults of one kind, but for short writes, which are few and of which all are tried.
func migrationBudget() time.Duration {
	switch os.Getenv(proofEnv) {
	case "long":
		return time.Minute
	case "short":
		return 5 * time.Second
	}
	return time.Second
}

// recordMigration opens and closes the store below a directory, on a strict filesystem,
// and answers every event.
func recordMigration(t *testing.T, from string, sync syncMode) []strict.Event {
	t.Helper()
	dir := scratch(t)
	record := filepath.Join(scratch(t), "events")
	mount, err := strict.New(dir, from, record)
	require.NoError(t, err)
	config := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), NoSyncFS: sync == nil}
	if sync != nil {
		config = sync(config, mount.SyncFS)
	}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, mount.Close())
	events, err := strict.ReadEvents(record)
	require.NoError(t, err)
	return events
}

// The nth call of the opening that brings an index up to date fails: the error says so,
// nothing is lost, also when the power is cut then, and the next opening goes on.
func TestMigrationFaultAtEveryCall(t *testing.T) {
	requireFUSE(t)
	seed := freshSeed(t)
	from := scratch(t)
	want := oldStore(t, filepath.Join(from, "store"))
	for _, kind := range faultKinds {
		t.Run(kind.name, func(t *testing.T) {
			fault := kind.fault
			fault.At = 1 << 30
			calls, _ := migrateWithFault(t, from, want, fault, kind.is)
			start, tried, hits := time.Now(), 0, map[string]int{}
			for _, n := range rand.New(rand.NewPCG(seed, 0)).Perm(calls) {
				if tried > 0 && !kind.fault.Short && time.Since(start) > migrationBudget()/4 {
					break
				}
				fault.At = n + 1
				_, hit := migrateWithFault(t, from, want, fault, kind.is)
				hits[hit]++
				tried++
			}
			t.Logf("%s: %d of %d calls failed: %v", howMany(tried, calls), tried, calls, hits)
		})
	}
}

// migrateWithFault opens a store of the old format while a call fails.
func migrateWithFault(t *testing.T, from string, want []goldenEntry, fault faulty.Fault, is error) (calls int, hit string) {
	t.Helper()
	mount, err := faulty.New(scratch(t), from)
	require.NoError(t, err)
	defer func() { require.NoError(t, mount.Close()) }()
	config := engine.FileStoreConfig{BaseDir: filepath.Join(mount.Dir, "store"), NoSyncFS: true}
	require.NoError(t, mount.Set(fault))
	f, opened := engine.Open(context.Background(), config)
	if opened == nil {
		opened = f.Close()
	}
	told, err := mount.Told()
	require.NoError(t, err)
	if opened != nil {
		require.NotEmpty(t, told.Hit, "fails without a fault: %v", opened)
		require.ErrorIs(t, opened, is, "a %s fails", told.Hit)
		require.ErrorContains(t, opened, config.BaseDir, "a %s fails", told.Hit)
	}
	require.NoError(t, mount.Set(faulty.Fault{}))
	left := func(keep strict.Keep) {
		dir := scratch(t)
		require.NoError(t, mount.Cut(dir, strict.Choice{Keep: keep}))
		requireMigrated(t, filepath.Join(dir, "store"), want)
		require.NoError(t, os.RemoveAll(dir))
	}
	left(strict.Nothing)
	left(strict.Everything)
	f, err = engine.Open(context.Background(), config)
	require.NoError(t, err, "although the fault, a %s, has passed", told.Hit)
	require.NoError(t, f.Close())
	left(strict.Nothing)
	return told.Calls, told.Hit
}
