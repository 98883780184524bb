package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// A Store that fails takes its reference back also where that is held already: it
// was never acknowledged.
func TestUndoOfAHeldReference(t *testing.T) {
	f, s := openForUndo(t)
	require.NoError(t, f.Hold(t.Context(), Hold{Name: "a", Target: HoldTarget{HoldSession, "failing"}}))
	real := s.blobs
	s.blobs = &failingPublish{real, func() error { return storage.ErrPermission }}
	_, err := put(f, "failing")
	require.ErrorIs(t, err, storage.ErrPermission)
	require.NotErrorIs(t, err, storage.ErrHeld)
	s.blobs = real
	for e, err := range f.List(t.Context(), Query{}) {
		require.NoError(t, err)
		require.Fail(t, "it stays", e.Reference.ID)
	}
}

// removeOnly is an index of which any other use panics.
type removeOnly struct {
	Index
	real Index
}

func (x *removeOnly) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	return x.real.Remove(ctx, id)
}

// A Delete asks the index for nothing more where nothing is held.
func TestDeleteReadsNothingWithoutHolds(t *testing.T) {
	f, s := openForUndo(t)
	ref, err := put(f, "one")
	require.NoError(t, err)
	id, err := storage.ParseID(ref.ID)
	require.NoError(t, err)
	real := s.index
	s.index = &removeOnly{real: real}
	removal, err := s.removeUnheld(t.Context(), id)
	s.index = real
	require.NoError(t, err)
	require.True(t, removal.Last)
	s.payRemoval(t.Context(), id.UUID, &removal)
}
