package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// backupFaultTime is how long faults are injected into backups.
func backupFaultTime() time.Duration {
	if os.Getenv(proofEnv) == "long" {
		return time.Minute
	}
	return 6 * time.Second
}

// A call of the disk fails while an earlier backup is brought up to date, and then
// the power is cut: what is left is the earlier backup or the new one, whole, or is
// refused. One that was reported as made is there. Another backup finishes it.
func TestBackupWhenCallsFail(t *testing.T) {
	requireFUSE(t)
	seed := freshSeed(t)
	for name, sync := range strictModes {
		t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
			r := newBackupFaults(t, sync)
			random := rand.New(rand.NewPCG(seed, 0))
			r.backUp(t, faulty.Fault{})
			calls := make([]int, len(faultKinds)) // that a fault of a kind can hit
			for i, kind := range faultKinds {
				r.change(t)
				kind.fault.At = 1 << 30
				calls[i] = r.backUp(t, kind.fault)
			}
			tried, seen := 0, map[string]int{}
			for end := time.Now().Add(backupFaultTime()); time.Now().Before(end); tried++ {
				i := random.IntN(len(faultKinds))
				fault := faultKinds[i].fault
				fault.At = 1 + random.IntN(max(1, calls[i]))
				r.change(t)
				seen[r.try(t, fault, faultKinds[i].is)]++
			}
			t.Logf("%d faults in %d calls: %v", tried, calls, seen)
			require.Greater(t, len(seen), 1)
		})
	}
}

type backupFaults struct {
	mount   *faulty.Mount
	f       *engine.FileStore
	dest    string
	earlier map[string]engine.Entry
	last    []*storage.StorageReference
	n       int
}

func newBackupFaults(t *testing.T, sync syncMode) *backupFaults {
	dir, err := os.MkdirTemp(scratchDir, "mediabolt-")
	require.NoError(t, err)
	mount, err := faulty.New(dir, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(mount.Close(), os.Remove(dir))) })
	config := engine.FileStoreConfig{BaseDir: filepath.Join(scratch(t), "store"), EnableDeduplication: true, NoSyncFS: sync == nil}
	if sync != nil {
		config = sync(config, mount.SyncFS)
	}
	r := &backupFaults{mount: mount, f: mustOpen(t, config), dest: filepath.Join(mount.Dir, "dest")}
	mustStore(t, r.f, large, storage.MediaMetadata{SessionID: "large"})
	for range 4 {
		r.change(t)
	}
	return r
}

// change stores and deletes, references to what stays too.
func (r *backupFaults) change(t *testing.T) {
	for i := range 3 {
		r.n++
		data := fmt.Appendf(nil, "blob %d", r.n)
		if i == 0 {
			data = shared
		}
		r.last = append(r.last, mustStore(t, r.f, data, storage.MediaMetadata{SessionID: fmt.Sprint("s", r.n%4)}))
	}
	for len(r.last) > 8 {
		require.NoError(t, r.f.Delete(context.Background(), r.last[0]))
		r.last = r.last[1:]
	}
}

// backUp makes a backup that must succeed, and counts the calls of that.
func (r *backupFaults) backUp(t *testing.T, fault faulty.Fault) int {
	require.NoError(t, r.mount.Set(fault))
	_, err := r.f.Backup(context.Background(), r.dest, engine.BackupOptions{})
	require.NoError(t, err)
	told, err := r.mount.Told()
	require.NoError(t, err)
	r.earlier = listedOf(t, r.f)
	return told.Calls
}

// try makes a backup in which a call fails, and says what was left of it.
func (r *backupFaults) try(t *testing.T, fault faulty.Fault, is error) (left string) {
	ctx := context.Background()
	require.NoError(t, r.mount.Set(fault))
	_, made := r.f.Backup(ctx, r.dest, engine.BackupOptions{})
	told, err := r.mount.Told()
	require.NoError(t, err)
	about := fmt.Sprintf("call %d, a %s, answers %v", fault.At, told.Hit, fault.Errno)
	if made != nil {
		require.ErrorIs(t, made, is, about)
		require.ErrorContains(t, made, r.dest, about)
	}
	now := listedOf(t, r.f)
	defer func() {
		if told.Hit == "" {
			left = "no fault"
		}
	}()
	for _, keep := range []strict.Choice{{Keep: strict.Nothing}, {Keep: strict.Everything}, {Keep: strict.Some, Seed: uint64(r.n)}} {
		dir := scratch(t)
		require.NoError(t, r.mount.Cut(dir, keep))
		left = r.judge(t, filepath.Join(dir, "dest"), now, made == nil, fmt.Sprint(about, ", cut, ", keep, " survives"))
	}
	require.NoError(t, r.mount.Set(faulty.Fault{}))
	r.backUp(t, faulty.Fault{})
	dir := scratch(t)
	require.NoError(t, r.mount.Cut(dir, strict.Choice{Keep: strict.Nothing}))
	require.Equal(t, now, openedBackup(t, filepath.Join(dir, "dest")), about)
	return left
}

// judge says what is left: the earlier backup, the new one, or what is refused.
func (r *backupFaults) judge(t *testing.T, dest string, now map[string]engine.Entry, made bool, about string) string {
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dest, NoCreate: true})
	if err != nil {
		require.False(t, made, "%s: a backup that was made does not open: %v", about, err)
		require.ErrorIs(t, err, storage.ErrCorrupted, about)
		require.True(t, strings.Contains(err.Error(), "was not finished"), "%s: %v", about, err)
		return "refused"
	}
	all := listedOf(t, f)
	for id := range all {
		mustRetrieve(t, f, &storage.StorageReference{ID: id})
	}
	require.NoError(t, f.Close())
	if !made && reflect.DeepEqual(all, r.earlier) {
		return "earlier"
	}
	require.Equal(t, now, all, about)
	require.Equal(t, now, openedBackup(t, dest), about)
	return "new"
}
