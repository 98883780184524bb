package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// failingSettle is a tree whose next Settle takes what others have written, and fails.
type failingSettle struct {
	Blobs
	fails bool
}

func (b *failingSettle) Settle(ctx context.Context) error {
	err := b.Blobs.Settle(ctx)
	if b.fails {
		b.fails, err = false, storage.ErrIO
	}
	return err
}

// What a sync that somebody else began has lost is nobody's to count as durable, and is
// owed until the store is opened again; what is written after it is not.
func TestFailedSettleIsEverybodys(t *testing.T) {
	f, s := openForUndo(t)
	s.ledger.stop() // no checkpoint but ours
	s.ledger.quit = nil
	tree := &failingSettle{Blobs: s.blobs}
	s.blobs = tree
	owed := func(want int) {
		t.Helper()
		debt, err := s.index.Debt(t.Context())
		require.NoError(t, err)
		require.Len(t, debt.Mirrors, want)
	}
	store := func(session string) {
		t.Helper()
		_, err := put(f, session)
		require.NoError(t, err)
	}
	store("written before")
	s.writeWaiting(t.Context())
	tree.fails = true
	require.ErrorIs(t, s.settle(t.Context(), s.ledger.failed.Load()), storage.ErrIO)
	require.ErrorIs(t, s.checkpoint(t.Context(), false), storage.ErrIO)
	owed(1)
	store("written after")
	require.NoError(t, s.checkpoint(t.Context(), false))
	owed(1)

	// A checkpoint that fails is no better for who is about to settle.
	since := s.ledger.failed.Load()
	store("written once more")
	tree.fails = true
	require.ErrorIs(t, s.checkpoint(t.Context(), false), storage.ErrIO)
	require.ErrorIs(t, s.settle(t.Context(), since), storage.ErrIO)
	require.NoError(t, s.settle(t.Context(), s.ledger.failed.Load()))
	owed(2)
}
