package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// testClock is a clock that a test sets.
type testClock struct{ micros atomic.Int64 }

func newClock() *testClock {
	c := new(testClock)
	c.micros.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	return c
}

func (c *testClock) now() time.Time       { return time.UnixMicro(c.micros.Load()).UTC() }
func (c *testClock) pass(d time.Duration) { c.micros.Add(d.Microseconds()) }

// openClocked opens a store in a directory of its own whose policies go by a clock.
func openClocked(t testing.TB) (*engine.FileStore, *testClock, engine.FileStoreConfig) {
	t.Helper()
	clock := newClock()
	config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, clock.now)
	return mustOpen(t, config), clock, config
}

func withPolicy(policy string) storage.MediaMetadata {
	return storage.MediaMetadata{SessionID: "session", Policy: policy}
}

func mustRetain(t testing.TB, f *engine.FileStore, ref *storage.StorageReference, policy string) engine.Entry {
	t.Helper()
	e, err := f.Retain(context.Background(), ref, policy)
	require.NoError(t, err)
	require.Equal(t, mustStat(t, f, ref), e)
	return e
}

func mustExpire(t testing.TB, f *engine.FileStore, opts engine.ExpireOptions) engine.Expired {
	t.Helper()
	done, err := f.Expire(context.Background(), opts)
	require.NoError(t, err)
	require.Empty(t, done.Failures)
	return done
}

func TestExpireEndsWhatIsDue(t *testing.T) {
	f, clock, config := openClocked(t)
	never := mustStore(t, f, small, withPolicy(""))
	forever := mustStore(t, f, other, withPolicy("retain"))
	hour := mustStore(t, f, shared, withPolicy("1h"))
	alone := mustStore(t, f, large, withPolicy("1h"))
	day := mustStore(t, f, shared, withPolicy("retain-1day"))

	clock.pass(time.Hour - time.Microsecond)
	require.Zero(t, mustExpire(t, f, engine.ExpireOptions{}))
	clock.pass(time.Microsecond)
	want := engine.Expired{
		References: 2, LogicalBytes: int64(len(shared) + len(large)), Blobs: 1, FreedBytes: int64(len(large)),
	}
	files := blobFiles(t, config.BaseDir)
	require.Equal(t, want, mustExpire(t, f, engine.ExpireOptions{DryRun: true}))
	require.Equal(t, files, blobFiles(t, config.BaseDir))
	require.EqualValues(t, 5, mustStats(t, f).References, "a dry run ends nothing")

	require.Equal(t, want, mustExpire(t, f, engine.ExpireOptions{}))
	for _, ref := range []*storage.StorageReference{hour, alone} {
		require.NoError(t, checkGone(f, ref.ID))
	}
	require.Equal(t, shared, mustRetrieve(t, f, day), "whoever keeps it longest keeps the bytes")
	require.EqualValues(t, 1, mustStat(t, f, day).Refs)
	require.Zero(t, mustExpire(t, f, engine.ExpireOptions{}), "again")

	clock.pass(100 * 365 * 24 * time.Hour)
	require.Equal(t, engine.Expired{References: 1, LogicalBytes: int64(len(shared)), Blobs: 1, FreedBytes: int64(len(shared))},
		mustExpire(t, f, engine.ExpireOptions{}))
	require.Equal(t, small, mustRetrieve(t, f, never))
	require.Equal(t, other, mustRetrieve(t, f, forever))
}

// A dry run and the run itself report the same where several references to one blob
// expire, some of which are held.
func TestDryRunForeseesSharedBlobs(t *testing.T) {
	f, clock, _ := openClocked(t)
	for i := range 30 {
		data := bytesOf(100+i%7, byte(i%7)) // seven blobs
		meta := withPolicy("1h")
		switch {
		case i%7 == 0 && i > 20:
			meta.Policy = "2h"
		case i%7 == 1 && i > 20:
			meta.UserID = "held"
		}
		mustStore(t, f, data, meta)
	}
	mustHold(t, f, engine.Hold{Name: "court", Target: engine.HoldTarget{Kind: engine.HoldUser, ID: "held"}})
	clock.pass(time.Hour)
	foreseen := mustExpire(t, f, engine.ExpireOptions{DryRun: true})
	require.EqualValues(t, 5, foreseen.Blobs)
	require.EqualValues(t, 2, foreseen.Held)
	require.Equal(t, foreseen, mustExpire(t, f, engine.ExpireOptions{}))
	require.EqualValues(t, 2, mustStats(t, f).Blobs)
	require.Equal(t, engine.Expired{Held: 2}, mustExpire(t, f, engine.ExpireOptions{}))
	mustRelease(t, f, "court", engine.HoldTarget{Kind: engine.HoldUser, ID: "held"})
	require.EqualValues(t, 1, mustExpire(t, f, engine.ExpireOptions{}).Blobs)
}

// A reference that counts several ends as a whole.
func TestExpireOfACountedReference(t *testing.T) {
	f, clock, config := openClocked(t)
	ref := mustStore(t, f, small, withPolicy("1h"))
	require.NoError(t, f.SetCount(context.Background(), ref, 3))
	clock.pass(time.Hour)
	require.EqualValues(t, 1, mustExpire(t, f, engine.ExpireOptions{}).Blobs)
	requireEmpty(t, f, config.BaseDir)
}

func TestRetain(t *testing.T) {
	f, clock, _ := openClocked(t)
	ref := mustStore(t, f, small, withPolicy("1h"))
	first := mustStat(t, f, ref)
	for _, c := range []struct {
		policy string
		want   time.Time
	}{
		{"retain", time.Time{}},
		{"retain", time.Time{}},
		{"delete-after-10min", clock.now().Add(time.Minute + 10*time.Minute)}, // a minute passes before
		{"2027-01-31T00:00:00Z", time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)},
		{"36h", clock.now().Add(time.Minute + 36*time.Hour)},
	} {
		if !c.want.IsZero() && clock.now().Equal(first.Metadata.CreatedAt) {
			clock.pass(time.Minute)
		}
		e := mustRetain(t, f, ref, c.policy)
		want := first
		want.Metadata.Policy, want.ExpiresAt = c.policy, c.want
		require.Equal(t, want, e, "nothing else changes")
	}
	clock.pass(time.Hour)
	require.Equal(t, clock.now().Add(36*time.Hour), mustRetain(t, f, ref, "36h").ExpiresAt, "again, from now on")
	clock.pass(40 * time.Hour)
	mustRetain(t, f, ref, "1h")
	require.Zero(t, mustExpire(t, f, engine.ExpireOptions{}), "it was due, and extended before it was ended")
	mustRetain(t, f, ref, "2001-01-01T00:00:00Z")
	require.EqualValues(t, 1, mustExpire(t, f, engine.ExpireOptions{}).References)

	ctx := context.Background()
	_, err := f.Retain(ctx, ref, "retain")
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.ErrorContains(t, err, ref.ID)
	kept := mustStore(t, f, other, withPolicy("retain"))
	for _, bad := range []string{"", "tomorrow"} {
		_, err = f.Retain(ctx, kept, bad)
		require.ErrorIs(t, err, storage.ErrInvalidPolicy)
		require.ErrorContains(t, err, kept.ID)
	}
	require.Equal(t, "retain", mustStat(t, f, kept).Metadata.Policy)
	_, err = f.Retain(ctx, &storage.StorageReference{ID: "x"}, "retain")
	require.ErrorIs(t, err, storage.ErrInvalidRef)
}

func TestExpireHeedsItsContextAndGoesOn(t *testing.T) {
	f, clock, config := openClocked(t)
	const many = 3000
	for i := range many {
		mustStore(t, f, bytesOf(8, byte(i%3)), withPolicy(fmt.Sprintf("%ds", 1+i%50)))
	}
	clock.pass(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	due := int64(0)
	done, err := f.Expire(ctx, engine.ExpireOptions{Progress: func(e engine.Expired) {
		due = e.Due
		cancel()
	}})
	require.EqualValues(t, many, due)
	require.Zero(t, done.Due)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, config.BaseDir)
	require.Positive(t, done.References)
	require.Less(t, done.References, int64(many))
	require.Equal(t, many-done.References, mustStats(t, f).References, "the report tells what was done")
	rest := mustExpire(t, f, engine.ExpireOptions{})
	require.EqualValues(t, many, done.References+rest.References)
	require.EqualValues(t, 3, done.Blobs+rest.Blobs)
	requireEmpty(t, f, config.BaseDir)
}

func TestExpireRate(t *testing.T) {
	f, clock, _ := openClocked(t)
	for i := range 30 {
		mustStore(t, f, bytesOf(8, byte(i)), withPolicy("1s"))
	}
	clock.pass(time.Hour)
	begun := time.Now()
	require.EqualValues(t, 30, mustExpire(t, f, engine.ExpireOptions{Rate: 100}).References)
	require.Greater(t, time.Since(begun), 280*time.Millisecond)
}

// While references come, are extended and expire at once, none is ended that is not
// due, and none that was extended in time.
func TestRetainBesideExpire(t *testing.T) {
	f, clock, _ := openClocked(t)
	const many = 400
	refs := make([]*storage.StorageReference, many)
	atOnce(t, 16, func(n int) (err error) {
		for i := n; i < many && err == nil; i += 16 {
			refs[i], err = f.Store(context.Background(), content(bytesOf(9, byte(i%5))), withPolicy("1h"))
		}
		return err
	})
	clock.pass(2 * time.Hour)
	var extended, late sync.Map
	atOnce(t, 24, func(n int) error {
		switch {
		case n < 4:
			_, err := f.Expire(context.Background(), engine.ExpireOptions{})
			return err
		case n < 8: // the same bytes come again, and stay
			for i := range 20 {
				ref, err := f.Store(context.Background(), content(bytesOf(9, byte(i%5))), withPolicy("1h"))
				if err != nil {
					return err
				}
				extended.Store(ref.ID, true)
			}
			return nil
		}
		for i := n - 8; i < many; i += 16 {
			switch _, err := f.Retain(context.Background(), refs[i], "1h"); {
			case err == nil:
				extended.Store(refs[i].ID, true)
			case errors.Is(err, storage.ErrNotFound):
				late.Store(refs[i].ID, true)
			default:
				return err
			}
		}
		return nil
	})
	count := func(m *sync.Map, check func(id string) error) (n int64) {
		m.Range(func(id, _ any) bool {
			n++
			require.NoError(t, check(id.(string)))
			return true
		})
		return n
	}
	stay := count(&extended, func(id string) error {
		_, err := f.Retrieve(context.Background(), &storage.StorageReference{ID: id})
		return err
	})
	count(&late, func(id string) error { return checkGone(f, id) })
	require.Equal(t, stay, mustStats(t, f).References)
}

// Sidecars tell of policy, expiry and revision, after a kill as after a Close.
func TestSidecarsTellOfRetention(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var kept, changed, ended *storage.StorageReference
	expiry := map[string]time.Time{}
	mustAbandon(t, config, func(f *engine.FileStore) {
		kept = mustStore(t, f, shared, withPolicy("36h"))
		changed = mustStore(t, f, shared, withPolicy("36h"))
		ended = mustStore(t, f, shared, withPolicy("1h"))
		expiry[kept.ID] = mustStat(t, f, kept).ExpiresAt
		mustRetain(t, f, changed, "retain-12hours")
		expiry[changed.ID] = mustRetain(t, f, changed, "2090-01-01T00:00:00Z").ExpiresAt
		mustRetain(t, f, ended, "2001-01-01T00:00:00Z")
		require.EqualValues(t, 1, mustExpire(t, f, engine.ExpireOptions{}).References)
	})
	setup(t, config, func(*engine.FileStore) {})
	check := func(revision uint32, policy string) {
		t.Helper()
		live := sidecarOf(t, config.BaseDir, kept.Metadata["path"])
		require.Len(t, live, 2)
		require.Zero(t, live[kept.ID].Revision)
		require.Equal(t, "36h", live[kept.ID].Metadata.Policy)
		require.Equal(t, expiry[kept.ID], live[kept.ID].ExpiresAt)
		require.Equal(t, revision, live[changed.ID].Revision)
		require.Equal(t, policy, live[changed.ID].Metadata.Policy)
		require.Equal(t, expiry[changed.ID], live[changed.ID].ExpiresAt)
	}
	check(2, "2090-01-01T00:00:00Z")
	setup(t, config, func(f *engine.FileStore) { expiry[changed.ID] = mustRetain(t, f, changed, "retain").ExpiresAt })
	check(3, "retain")
}

// sidecarOf is the references that the sidecar of a blob says are live, by ID.
func sidecarOf(t require.TestingT, baseDir, path string) map[string]*storage.RefRow {
	root, err := os.OpenRoot(baseDir)
	require.NoError(t, err)
	tree, err := blobs.Open(blobs.Config{Root: root})
	require.NoError(t, err)
	sidecar, err := tree.ReadSidecar(context.Background(), path)
	require.NoError(t, err)
	require.NoError(t, errors.Join(tree.Close(), root.Close()))
	live := map[string]*storage.RefRow{}
	for id, row := range sidecar.Live() {
		hash := (&storage.BlobRow{Path: path}).NameHash()
		live[hash+"-"+id.String()] = row
	}
	return live
}

// An Expire that is stopped at any point of an end, by a kill or an error, is gone on
// with by the next one.
func TestCrashWhileExpiring(t *testing.T) {
	for _, point := range []engine.FaultPoint{engine.FaultRemoved, engine.FaultSettled} {
		t.Run(string(point), func(t *testing.T) {
			clock := newClock()
			config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, clock.now)
			setup(t, config, func(f *engine.FileStore) {
				for i := range 40 {
					mustStore(t, f, small, withPolicy("1h"))
					mustStore(t, f, bytesOf(50, byte(i)), withPolicy("1h"))
				}
				mustStore(t, f, shared, withPolicy("1h"))
				mustStore(t, f, shared, withPolicy("retain"))
			})
			clock.pass(time.Hour)
			c := &crash{point: point, from: config.BaseDir, copyDir: t.TempDir()}
			f, err := engine.Open(context.Background(), engine.WithFaults(config, c.fault))
			require.NoError(t, err)
			done, err := f.Expire(context.Background(), engine.ExpireOptions{})
			if point == engine.FaultRemoved {
				require.ErrorIs(t, err, errCrash)
				require.Zero(t, done.References)
			}
			_ = f.Checkpoint(context.Background()) // reaches the other point
			require.NoError(t, c.copyErr)
			require.True(t, c.reached.Load())
			require.NoError(t, f.Abandon())
			for _, dir := range []string{c.copyDir, config.BaseDir} {
				killed := config
				killed.BaseDir = dir
				setup(t, killed, func(f *engine.FileStore) {
					require.Empty(t, damage(t, f))
					mustExpire(t, f, engine.ExpireOptions{})
				})
				requireRecovered(t, killed, shared)
			}
		})
	}
}

// What concerns all references ends an Expire, what concerns one is in its report.
func TestExpireErrors(t *testing.T) {
	clock := newClock()
	var failing atomic.Pointer[error]
	config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, clock.now)
	f := mustOpen(t, engine.WithSeams(config, func(x engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		return &failingEnd{Index: x, err: &failing}, b
	}))
	for i := range 150 {
		mustStore(t, f, bytesOf(10, byte(i)), withPolicy("1h"))
	}
	clock.pass(time.Hour)
	damaged := fmt.Errorf("%w: row of the test", storage.ErrCorrupted)
	failing.Store(&damaged)
	done, err := f.Expire(context.Background(), engine.ExpireOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 150, done.Failed)
	require.Len(t, done.Failures, 100)
	for _, failure := range done.Failures {
		require.ErrorIs(t, failure.Err, storage.ErrCorrupted)
		require.ErrorContains(t, failure.Err, failure.ID)
	}
	full := fmt.Errorf("%w: of the test", storage.ErrDiskSpace)
	failing.Store(&full)
	done, err = f.Expire(context.Background(), engine.ExpireOptions{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.ErrorContains(t, err, config.BaseDir)
	require.Zero(t, done)
	failing.Store(nil)
	require.EqualValues(t, 150, mustExpire(t, f, engine.ExpireOptions{}).References)

	require.NoError(t, f.Close())
	_, err = f.Expire(context.Background(), engine.ExpireOptions{})
	require.ErrorIs(t, err, storage.ErrClosed)
}

// failingEnd is an index whose End fails with an error while there is one.
type failingEnd struct {
	engine.Index
	err *atomic.Pointer[error]
}

func (x *failingEnd) End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	if err := x.err.Load(); err != nil {
		return storage.Removal{}, *err
	}
	return x.Index.End(ctx, id, due)
}

// Without holds that are known nothing is ended.
func TestExpireWithDamagedHolds(t *testing.T) {
	clock := newClock()
	config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, clock.now)
	var ref *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) {
		ref = mustStore(t, f, small, withPolicy("1h"))
		mustHold(t, f, onSession("a", "session"))
	})
	clock.pass(time.Hour)
	holds := config.BaseDir + "/.mediabolt/holds"
	whole, err := os.ReadFile(holds)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(holds, whole[:600], 0o600))
	setup(t, config, func(f *engine.FileStore) {
		for _, dry := range []bool{true, false} {
			done, err := f.Expire(context.Background(), engine.ExpireOptions{DryRun: dry})
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.Zero(t, done)
		}
		require.Equal(t, small, mustRetrieve(t, f, ref))
	})
}

func TestExpireEvents(t *testing.T) {
	clock := newClock()
	h := new(heard)
	config := engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, EventListener: h.listener()}, clock.now)
	f := mustOpen(t, config)
	a := mustStore(t, f, small, withPolicy("1h"))
	b := mustStore(t, f, small, withPolicy("2h"))
	clock.pass(time.Hour)
	h.take()
	for _, c := range []struct {
		ref  *storage.StorageReference
		last bool
	}{{a, false}, {b, true}} {
		mustExpire(t, f, engine.ExpireOptions{DryRun: true})
		h.quiet(t, "a dry run ends nothing")
		mustExpire(t, f, engine.ExpireOptions{})
		e := h.only(t, "expired")
		require.Positive(t, e.Duration)
		e.Duration = 0
		require.Equal(t, engine.Event{
			Operation: engine.OpExpire, Store: config.BaseDir, ID: c.ref.ID, Path: a.Metadata["path"], Bytes: int64(len(small)), Last: c.last,
		}, e)
		clock.pass(time.Hour)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mustStore(t, f, small, withPolicy("1h"))
	clock.pass(time.Hour)
	h.take()
	_, err := f.Expire(ctx, engine.ExpireOptions{Progress: func(engine.Expired) {}})
	require.NoError(t, err)
	h.only(t, "expired")
	mustStore(t, f, small, withPolicy("1h"))
	clock.pass(time.Hour)
	h.take()
	x := &cancelInTheIndex{cancel: cancel}
	require.NoError(t, f.Close())
	f = mustOpen(t, engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		x.Index = i
		return x, b
	}))
	h.take()
	_, err = f.Expire(ctx, engine.ExpireOptions{})
	require.ErrorIs(t, err, context.Canceled)
	e := h.only(t, "failed")
	require.Equal(t, engine.OpExpire, e.Operation)
	require.Equal(t, "canceled", e.Class)
}

// cancelInTheIndex is an index that cancels a context once it is asked what is due.
type cancelInTheIndex struct {
	engine.Index
	cancel func()
}

func (x *cancelInTheIndex) Due(ctx context.Context, before time.Time, after storage.Place, limit int) ([]storage.RefPair, storage.Place, bool, error) {
	defer x.cancel()
	return x.Index.Due(ctx, before, after, limit)
}

// The clock may stand at the end of what a row can tell.
func TestExpireAtTheEndOfTime(t *testing.T) {
	f, clock, _ := openClocked(t)
	mustStore(t, f, small, withPolicy("9999-12-31T23:59:59.999999Z"))
	clock.micros.Store(time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro())
	require.EqualValues(t, 1, mustExpire(t, f, engine.ExpireOptions{Rate: math.MaxInt}).References)
}
