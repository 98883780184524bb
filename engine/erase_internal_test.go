package engine

import (
	"context"
	"encoding/base64"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// A reference that was stored while the clock was ahead is erased, and one that is
// stored afterwards is none of the decision.
func TestEraseAfterTheClockWasSetBack(t *testing.T) {
	ctx := context.Background()
	config := FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f, err := Open(ctx, config)
	require.NoError(t, err)
	f.store.mint.last = storage.UUIDAt(time.Now().Add(time.Hour))
	content := &storage.MediaContent{Type: "image", MimeType: "image/png", Data: base64.StdEncoding.EncodeToString([]byte("early"))}
	_, err = f.Store(ctx, content, storage.MediaMetadata{SessionID: "doomed"})
	require.NoError(t, err)
	require.NoError(t, f.Close())

	f, err = Open(ctx, config)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	done, err := f.Erase(ctx, Query{SessionID: "doomed"}, EraseOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.References)
	ref, err := f.Store(ctx, content, storage.MediaMetadata{SessionID: "doomed"})
	require.NoError(t, err)
	e, err := f.Stat(ctx, ref)
	require.NoError(t, err)
	require.False(t, done.Query.Matches(&e), "stored since")
}
