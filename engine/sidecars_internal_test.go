package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// fillLines leaves no room for a line until the next checkpoint, of which there is
// none until the function that it answers is called. The lines are of blobs that are
// gone, so that nothing comes of them.
func fillLines(t *testing.T, s *store) (end func()) {
	t.Helper()
	s.ledger.turn.Lock()
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for len(s.ledger.lines) < maxLines {
		s.ledger.lines = append(s.ledger.lines, sidecarLine{
			storage.BlobRow{Key: storage.UUIDKey(storage.UUID{1}), Path: "gone"}, storage.SidecarLine{Deleted: storage.UUID{1}}})
	}
	return s.ledger.turn.Unlock
}

// returns requires that a call comes back.
func returns(t *testing.T, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "it waits for ever")
	}
}

// While a checkpoint is behind with as many lines as may wait, every call writes its
// own, also one that has the lock of the blob's key.
func TestStoresReturnWhileTheLedgerIsFull(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*testing.T, *FileStore, *store) // what is there
	}{
		{"new content", func(*testing.T, *FileStore, *store) {}},
		{"shared content", func(t *testing.T, f *FileStore, _ *store) {
			_, err := put(f, "earlier")
			require.NoError(t, err)
		}},
		{"healed content", func(t *testing.T, f *FileStore, s *store) {
			ref, err := put(f, "earlier")
			require.NoError(t, err)
			require.NoError(t, s.checkpoint(t.Context(), true))
			require.NoError(t, os.Remove(filepath.Join(s.cfg.BaseDir, ref.Metadata["path"])))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, s := openForUndo(t)
			c.before(t, f, s)
			end := fillLines(t, s)
			returns(t, func() {
				ref, err := put(f, "later")
				require.NoError(t, err)
				_, err = f.Retrieve(t.Context(), ref)
				require.NoError(t, err)
			})
			end()
		})
	}
}

// So does a store that takes its reference back from bytes that another has joined.
func TestUndoWhileTheLedgerIsFull(t *testing.T) {
	f, s := openForUndo(t)
	real := s.blobs
	s.blobs = &failingPublish{real, func() error {
		page, _, _, err := s.index.Refs(t.Context(), storage.RefFilter{}, storage.UUID{}, 1)
		require.NoError(t, err)
		joining := storage.Addition{Ref: page[0].Ref, Blob: page[0].Blob}
		joining.Ref.UUID, err = s.mint.next()
		require.NoError(t, err)
		_, err = s.index.Add(t.Context(), &joining)
		require.NoError(t, err)
		return storage.ErrPermission
	}}
	end := fillLines(t, s)
	returns(t, func() {
		_, err := put(f, "failing")
		require.ErrorIs(t, err, storage.ErrPermission)
	})
	s.blobs = real
	end()
	_, err := put(f, "later")
	require.NoError(t, err, "what is stuck in staging is published by the next who brings it")
	// The line of the reference that was added below the store.
	debt, err := s.index.Debt(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.payMirrors(t.Context(), debt.Mirrors))
}
