package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func mustExplain(t testing.TB, f *engine.FileStore, ref *storage.StorageReference) engine.Explanation {
	t.Helper()
	x, err := f.Explain(context.Background(), ref)
	require.NoError(t, err)
	require.Equal(t, mustStat(t, f, ref), x.Entry)
	x.Entry = engine.Entry{}
	return x
}

func TestExplain(t *testing.T) {
	f, clock, _ := openClocked(t)
	ctx := context.Background()
	hour, day := clock.now().Add(time.Hour), clock.now().Add(24*time.Hour)
	a := mustStore(t, f, shared, withPolicy("1h"))
	require.Equal(t, engine.Explanation{BytesUntil: hour, Deletion: engine.DeletionFreesBytes}, mustExplain(t, f, a))

	b := mustStore(t, f, shared, storage.MediaMetadata{SessionID: "other", Policy: "24h"})
	entryB := mustStat(t, f, b)
	require.Equal(t, engine.Explanation{Others: 1, Longest: &entryB, BytesUntil: day, Deletion: engine.DeletionKeepsBytes}, mustExplain(t, f, a))
	entryA := mustStat(t, f, a)
	require.Equal(t, engine.Explanation{Others: 1, Longest: &entryA, BytesUntil: day, Deletion: engine.DeletionKeepsBytes}, mustExplain(t, f, b))

	c, d := mustStore(t, f, shared, withPolicy("retain")), mustStore(t, f, shared, withPolicy("retain"))
	x := mustExplain(t, f, a)
	require.EqualValues(t, 3, x.Others)
	require.Equal(t, c.ID, x.Longest.Reference.ID, "of several for ever, the first")
	require.Zero(t, x.BytesUntil)
	x = mustExplain(t, f, c)
	require.Equal(t, d.ID, x.Longest.Reference.ID)
	require.NoError(t, f.Delete(ctx, c))
	require.NoError(t, f.Delete(ctx, d))

	onB := engine.Hold{Name: "court", Target: engine.HoldTarget{Kind: engine.HoldReference, ID: b.ID}, Reason: "case 7", At: clock.now()}
	mustHold(t, f, onB, onSession("a pin", "session"))
	x = mustExplain(t, f, a)
	require.Len(t, x.Holds, 1)
	require.Equal(t, "a pin", x.Holds[0].Name)
	require.Equal(t, engine.DeletionRefused, x.Deletion)
	require.True(t, x.LongestHeld)
	require.Zero(t, x.BytesUntil)
	x = mustExplain(t, f, b)
	require.Equal(t, []engine.Hold{onB}, x.Holds)
	mustRelease(t, f, "a pin", engine.HoldTarget{Kind: engine.HoldSession, ID: "session"})
	x = mustExplain(t, f, a)
	require.Empty(t, x.Holds)
	require.True(t, x.LongestHeld, "another holds the bytes")
	require.Zero(t, x.BytesUntil)
	require.Equal(t, engine.DeletionKeepsBytes, x.Deletion)

	require.False(t, x.Due)
	clock.pass(time.Hour)
	require.True(t, mustExplain(t, f, a).Due)
	require.NoError(t, f.SetCount(ctx, a, 2))
	require.Equal(t, engine.DeletionCounts, mustExplain(t, f, a).Deletion)
	require.NoError(t, f.Delete(ctx, a))
	require.NoError(t, f.Delete(ctx, a))
	_, err := f.Explain(ctx, a)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.ErrorContains(t, err, a.ID)
	_, err = f.Explain(ctx, nil)
	require.ErrorIs(t, err, storage.ErrInvalidRef)
}

// Bytes that are stored once more without deduplication are no others.
func TestExplainWithoutDedup(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	a := mustStore(t, f, shared, someIDs)
	mustStore(t, f, shared, someIDs)
	require.Equal(t, engine.Explanation{Deletion: engine.DeletionFreesBytes}, mustExplain(t, f, a))
}
