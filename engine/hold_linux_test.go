package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A hold or a release in doubt keeps what it is on until the store is reopened. What
// is in force then stays so, also when the power is cut before anything else is
// written: after a failed sync the kernel has in memory what is not on disk.
func TestHoldsInDoubt(t *testing.T) {
	t.Parallel()
	requireFUSE(t)
	for i, release := range []bool{false, true, false, true} {
		others := []string{"a", "b", "c"}[:3*(i/2)]
		doubts := map[bool]int{} // by whether it had happened
		for n := 1; ; n++ {
			hit, happened, doubted := doubtHold(t, faulty.Fault{At: n, Errno: syscall.EIO, Changes: true}, release, others)
			if !hit {
				break
			}
			if doubted {
				doubts[happened]++
			}
		}
		t.Logf("%d other holds, release: %v, doubts by whether it had happened: %v", len(others), release, doubts)
		require.NotEmpty(t, doubts)
	}
}

// doubtHold has a hold begin, or end, while a call fails. Where there are no others
// the journal is made, or made anew, then.
func doubtHold(t *testing.T, fault faulty.Fault, release bool, others []string) (hit, happened, doubted bool) {
	ctx := context.Background()
	dir := scratch(t)
	mount, err := faulty.New(dir, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, mount.Close()) }()
	config := engine.FileStoreConfig{BaseDir: filepath.Join(mount.Dir, "store"), NoSyncFS: true}
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	ref := mustStore(t, f, small, allIDs)
	session := holdTargets(ref)[1]
	for _, name := range others {
		mustHold(t, f, onSession(name, "another"))
	}
	want := len(mustListHolds(t, f))
	if release {
		mustHold(t, f, engine.Hold{Name: "doubtful", Target: session})
	}
	require.NoError(t, mount.Set(fault))
	if release {
		_, err = f.Release(ctx, "doubtful", session)
	} else {
		err = f.Hold(ctx, engine.Hold{Name: "doubtful", Target: session})
	}
	told, e := mount.Told()
	require.NoError(t, e)
	require.NoError(t, mount.Set(faulty.Fault{}))
	if err != nil {
		require.ErrorIs(t, err, storage.ErrIO)
	}
	if doubted = errors.Is(err, storage.ErrInDoubt); doubted {
		requireHeld(t, f, ref, "doubtful", session)
		err := f.Hold(ctx, engine.Hold{Name: "doubtful", Target: session})
		require.ErrorContains(t, err, "reopen the store", "what is in doubt is not acknowledged by asking again")
	}
	require.NoError(t, f.Abandon())

	setup(t, config, func(f *engine.FileStore) {
		listed := mustListHolds(t, f)
		happened = (len(listed) == want) == release
		cut := scratch(t)
		require.NoError(t, mount.Cut(cut, strict.Choice{Keep: strict.Nothing}))
		after := engine.FileStoreConfig{BaseDir: filepath.Join(cut, "store")}
		setup(t, after, func(f *engine.FileStore) { require.Equal(t, listed, mustListHolds(t, f)) })
		require.NoError(t, os.RemoveAll(cut))
	})
	require.False(t, err == nil && !happened, "acknowledged")
	require.False(t, err != nil && !doubted && happened, "failed, and has happened")
	return told.Hit != "", happened, doubted
}
