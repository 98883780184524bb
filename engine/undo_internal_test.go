package engine

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// failingPublish is a tree whose Publish fails while publish says so.
type failingPublish struct {
	Blobs
	publish func() error
}

func (b *failingPublish) Publish(ctx context.Context, key storage.BlobKey, path string) error {
	if err := b.publish(); err != nil {
		return err
	}
	return b.Blobs.Publish(ctx, key, path)
}

// pausedAdd is an index that calls before each addition.
type pausedAdd struct {
	Index
	before func(*storage.Addition)
}

func (x *pausedAdd) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	x.before(add)
	return x.Index.Add(ctx, add)
}

func openForUndo(t *testing.T) (*FileStore, *store) {
	t.Helper()
	f, err := Open(t.Context(), FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		for finding, err := range f.Verify(context.Background(), VerifyOptions{}) {
			require.NoError(t, err)
			require.NotEqual(t, storage.SeverityDamage, finding.Severity, "%+v", finding)
		}
		require.NoError(t, f.Close())
	})
	return f, f.store
}

func put(f *FileStore, session string) (*storage.StorageReference, error) {
	return f.StoreReader(context.Background(), bytes.NewReader([]byte("the bytes")),
		storage.MediaInfo{}, storage.MediaMetadata{SessionID: session})
}

// A store whose publish fails takes its reference back, but not the staged
// bytes when another store has joined the new row meanwhile: they are all that
// the other has.
func TestUndoKeepsBytesThatOthersJoined(t *testing.T) {
	f, s := openForUndo(t)
	first, err := put(f, "first")
	require.NoError(t, err)
	ready, proceed, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.index = &pausedAdd{s.index, func(add *storage.Addition) {
		if add.Ref.Metadata.SessionID == "joining" && !add.Staged {
			close(ready) // it has seen row and file of the first
			<-proceed
		}
	}}
	real := s.blobs
	s.blobs = &failingPublish{real, func() error {
		close(proceed)
		<-done
		return storage.ErrPermission
	}}
	var joined *storage.StorageReference
	var joinErr error
	go func() {
		defer close(done)
		joined, joinErr = put(f, "joining")
	}()
	<-ready
	require.NoError(t, f.Delete(t.Context(), first))
	_, err = put(f, "failing")
	require.ErrorIs(t, err, storage.ErrPermission)
	require.NoError(t, joinErr)
	_, err = f.Retrieve(t.Context(), joined)
	require.NoError(t, err)

	s.blobs = real
	again, err := put(f, "later")
	require.NoError(t, err, "what is stuck in staging is published by the next who brings it")
	require.Equal(t, joined.Metadata["path"], again.Metadata["path"])
}

// A reference that somebody found in a listing and deleted before its publish
// failed leaves nothing, and no debt.
func TestUndoOfADeletedReference(t *testing.T) {
	f, s := openForUndo(t)
	real := s.blobs
	s.blobs = &failingPublish{real, func() error {
		for e, err := range f.List(t.Context(), Query{}) {
			require.NoError(t, err)
			id, err := storage.ParseID(e.Reference.ID)
			require.NoError(t, err)
			removal, err := s.index.Remove(t.Context(), id)
			require.NoError(t, err)
			require.True(t, removal.Last)
		}
		return storage.ErrPermission
	}}
	_, err := put(f, "failing")
	require.ErrorIs(t, err, storage.ErrPermission)
	s.ledger.mu.Lock()
	require.Empty(t, s.ledger.owed)
	s.ledger.mu.Unlock()
	// The file is owed its removal by whoever deleted the reference, which
	// this test did below the store: the next opening does it.
	s.blobs = real
	require.NoError(t, f.Close())
	fresh := NewFileStore(f.config)
	f.opening, f.gone, f.store, f.closed = fresh.opening, fresh.gone, nil, false
}

// A checkpoint whose context has ended loses nothing of what was paid.
func TestCancelledCheckpointKeepsWhatWasPaid(t *testing.T) {
	f, s := openForUndo(t)
	_, err := put(f, "one")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.checkpoint(ctx, true), context.Canceled)
	require.NoError(t, s.checkpoint(t.Context(), true))
	debt, err := s.index.Debt(t.Context())
	require.NoError(t, err)
	require.Empty(t, debt.Mirrors)
}
