package engine_test

import (
	"context"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	require.NoError(t, err)
	data := base64.StdEncoding.EncodeToString([]byte("hello world"))
	a, err := s.Store(ctx, &storage.MediaContent{Data: data}, storage.MediaMetadata{SessionID: "s1", ConversationID: "c1"})
	require.NoError(t, err)
	b, err := s.Store(ctx, &storage.MediaContent{Data: data}, storage.MediaMetadata{SessionID: "s2", ConversationID: "c1"})
	require.NoError(t, err)
	t.Log(a, b)
	require.NoError(t, s.Delete(ctx, a))
	require.NoError(t, s.Delete(ctx, a))
	got, err := s.Retrieve(ctx, b)
	require.NoError(t, err)
	require.Equal(t, data, got.Data)
	for f, err := range s.Verify(ctx, engine.VerifyOptions{}) {
		require.NoError(t, err)
		t.Error(f)
	}
	require.NoError(t, s.Close())
	s, err = engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	require.NoError(t, err)
	require.NoError(t, s.Delete(ctx, b))
	for f, err := range s.Verify(ctx, engine.VerifyOptions{}) {
		require.NoError(t, err)
		t.Error(f)
	}
	require.NoError(t, s.Close())
}
