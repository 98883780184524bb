package boltindex_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/storage"
)

func init() { strict.Main() }

// After a power cut at any event of a compaction, or of what follows it without a
// checkpoint of the store, whose syncs would hide a missing one, every reference that
// was acknowledged is there: also once the log has used its segments again.
func TestCompactStrictCuts(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip.Proof(t, "needs root and /dev/fuse")
	}
	const before, after = 20, 5
	record := filepath.Join(t.TempDir(), "events")
	m, err := strict.New(t.TempDir(), "", record)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	var acknowledged []int // how many events there were when each reference was
	root, err := os.OpenRoot(m.Dir)
	require.NoError(t, err)
	x, err := boltindex.Open(t.Context(), boltindex.Config{Root: root, Create: true, CompactAt: -1})
	require.NoError(t, err)
	add := func() {
		var u storage.UUID
		binary.BigEndian.PutUint16(u[:], uint16(len(acknowledged)+1))
		mustAdd(t, x, u, storage.MediaMetadata{SessionID: "s"})
		at, err := m.Clock()
		require.NoError(t, err)
		acknowledged = append(acknowledged, at)
	}
	for range before {
		add()
	}
	_, err = x.Compact(context.Background(), false, nil)
	require.NoError(t, err)
	for range after {
		add()
		require.NoError(t, x.Flush())
	}
	end, err := m.Clock()
	require.NoError(t, err)
	require.NoError(t, x.Close())
	require.NoError(t, root.Close()) // or the mount is in use
	require.NoError(t, m.Close())

	events, err := strict.ReadEvents(record)
	require.NoError(t, err)
	begin, cuts := acknowledged[before-1], 0
	model := strict.NewModel()
	for cut := 0; cut <= end; cut++ {
		if cut > 0 {
			model.Apply(&events[cut-1])
		}
		if cut < begin {
			continue
		}
		for _, choice := range []strict.Choice{{Keep: strict.Nothing}, {Keep: strict.Everything}, {Keep: strict.Some, Seed: uint64(cut)}} {
			dir := filepath.Join(t.TempDir(), "cut")
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, model.Survive(choice).Write(dir))
			want := 0
			for want < len(acknowledged) && acknowledged[want] <= cut {
				want++
			}
			x, err := open(t.Context(), t, dir, boltindex.Config{NoSync: true, CompactAt: -1})
			require.NoError(t, err, "cut after event %d of %d, %s survives", cut, end, choice)
			require.GreaterOrEqual(t, len(uuids(t, x)), want, "cut after event %d of %d, %s survives", cut, end, choice)
			mustClose(t, x)
			require.NoError(t, os.RemoveAll(dir))
			cuts++
		}
	}
	t.Logf("%d cuts after %d events", cuts, end-begin+1)
}
