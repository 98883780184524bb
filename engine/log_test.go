package engine_test

import (
	"context"
	"log/slog"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// levels are the levels of the messages that were logged.
func (r *records) levels() map[string]slog.Level {
	r.mu.Lock()
	defer r.mu.Unlock()
	levels := map[string]slog.Level{}
	for _, record := range r.all {
		levels[record.Message] = record.Level
	}
	return levels
}

// What a store does by itself in a quiet life is for who debugs it.
func TestLogOfAQuietLife(t *testing.T) {
	ctx := context.Background()
	log := &records{}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Logger: slog.New(log)}
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	mustStore(t, f, small, storage.MediaMetadata{})
	require.NoError(t, f.Checkpoint(ctx))
	require.NoError(t, f.Close())
	require.Equal(t, map[string]slog.Level{
		"opened": slog.LevelDebug, "made a checkpoint": slog.LevelDebug, "moved rows from the log to bbolt": slog.LevelDebug,
		"closed": slog.LevelDebug,
	}, log.levels())
}

// A store that gives up syncfs(2) says so, once.
func TestLogOfAFailedSyncFS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("syncfs is Linux's")
	}
	ctx := context.Background()
	log := &records{}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Logger: slog.New(log)}
	f, err := engine.Open(ctx, engine.WithSyncFS(config, func() error { return syscall.EIO }))
	require.NoError(t, err)
	defer func() { verifyClean(t, f, config) }()
	ref := mustStore(t, f, small, storage.MediaMetadata{})
	require.ErrorIs(t, f.Checkpoint(ctx), storage.ErrIO)
	require.Equal(t, slog.LevelWarn, log.levels()["syncfs has failed: every file is synced by itself from now on"])
	mustStore(t, f, shared, storage.MediaMetadata{})
	require.NoError(t, f.Checkpoint(ctx), "files are synced one by one")
	require.Equal(t, small, mustRetrieve(t, f, ref))
	require.NoError(t, f.Close())
}
