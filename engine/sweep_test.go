package engine_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// openSweeping opens a store that sweeps, and says what it logs.
func openSweeping(t *testing.T, clock *testClock, config engine.FileStoreConfig) (*engine.FileStore, *records) {
	t.Helper()
	log := &records{}
	config.BaseDir, config.EnableDeduplication, config.Logger = t.TempDir(), true, slog.New(log)
	return mustOpen(t, engine.WithClock(config, clock.now)), log
}

// sweeps are the attributes of what was logged of each sweep.
func (r *records) sweeps() (all []map[string]slog.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.all {
		if record.Message != "swept" {
			continue
		}
		attrs := map[string]slog.Value{}
		record.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value; return true })
		all = append(all, attrs)
	}
	return all
}

func gone(t *testing.T, f *engine.FileStore, refs ...*storage.StorageReference) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, ref := range refs {
			if checkGone(f, ref.ID) != nil {
				return false
			}
		}
		return true
	}, 10*time.Second, 5*time.Millisecond)
}

func TestSweeper(t *testing.T) {
	clock := newClock()
	f, log := openSweeping(t, clock, engine.FileStoreConfig{SweepInterval: 20 * time.Millisecond})
	kept := mustStore(t, f, small, withPolicy("retain"))
	a, b := mustStore(t, f, small, withPolicy("1h")), mustStore(t, f, other, withPolicy("1h"))
	time.Sleep(100 * time.Millisecond)
	require.EqualValues(t, 3, mustStats(t, f).References, "nothing is due")
	require.Empty(t, log.sweeps())
	clock.pass(time.Hour)
	gone(t, f, a, b)
	require.Equal(t, small, mustRetrieve(t, f, kept))
	require.NoError(t, f.Close())
	sweeps := log.sweeps()
	require.Len(t, sweeps, 1, "only a sweep that did something is told of")
	require.EqualValues(t, 2, sweeps[0]["references"].Int64())
	require.EqualValues(t, 1, sweeps[0]["blobs"].Int64())
	require.EqualValues(t, len(other), sweeps[0]["freed_bytes"].Int64())
}

// Without an interval a store ends nothing by itself.
func TestNoSweeper(t *testing.T) {
	clock := newClock()
	f, _ := openSweeping(t, clock, engine.FileStoreConfig{})
	ref := mustStore(t, f, small, withPolicy("1h"))
	clock.pass(time.Hour)
	time.Sleep(50 * time.Millisecond)
	mustRetrieve(t, f, ref)
}

// A store with a long interval does not wait for all of it where it knows that
// something expires before.
func TestSweeperWaitsForTheNextExpiry(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	var ref *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) { ref = mustStore(t, f, small, withPolicy("2s")) })
	config.SweepInterval = 10 * time.Second
	begun := time.Now()
	f := mustOpen(t, config)
	require.Eventually(t, func() bool { return checkGone(f, ref.ID) == nil }, 9*time.Second, 20*time.Millisecond)
	require.Less(t, time.Since(begun), 9*time.Second)
}

// Close ends a sweep that has far to go, and what it has not ended is due afterwards.
func TestCloseEndsASweep(t *testing.T) {
	clock := newClock()
	config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}, clock.now)
	const many = 500
	setup(t, config, func(f *engine.FileStore) {
		for i := range many {
			mustStore(t, f, bytesOf(10, byte(i)), withPolicy("1h"))
		}
	})
	clock.pass(time.Hour)
	var ended atomic.Int64
	config.SweepInterval, config.SweepRate = time.Millisecond, 50
	config.EventListener = &engine.EventListener{Expired: func(engine.Event) { ended.Add(1) }}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return ended.Load() >= 5 }, 10*time.Second, time.Millisecond)
	begun := time.Now()
	require.NoError(t, f.Close())
	require.Less(t, time.Since(begun), 5*time.Second)
	n := ended.Load()
	require.Less(t, n, int64(many/2), "the rate is bounded")
	config.SweepInterval, config.EventListener = 0, nil
	f = mustOpen(t, config)
	require.EqualValues(t, many-n, mustStats(t, f).References)
	require.EqualValues(t, many-n, mustExpire(t, f, engine.ExpireOptions{}).References)
}

// Opening and closing at once, with sweeps under way and callers beside them.
func TestSweeperBesideCallers(t *testing.T) {
	clock := newClock()
	f, _ := openSweeping(t, clock, engine.FileStoreConfig{SweepInterval: time.Millisecond})
	atOnce(t, 16, func(n int) error {
		for i := range 30 {
			ref, err := f.Store(context.Background(), content(bytesOf(20, byte(i%4))), withPolicy([]string{"1s", "retain"}[n%2]))
			if err != nil {
				return err
			}
			clock.pass(100 * time.Millisecond)
			if _, err := f.Retrieve(context.Background(), ref); n%2 == 1 && err != nil {
				return err
			}
		}
		return nil
	})
	clock.pass(time.Hour)
	require.Eventually(t, func() bool { return mustStats(t, f).References == 8*30 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 4, mustStats(t, f).Blobs)
}
