package boltindex_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/indextest"
	"github.com/mediabolt/mediabolt/storage"
)

func TestConformance(t *testing.T) {
	indextest.Run(t, func(t *testing.T, dir string) engine.Index { return mustOpen(t, dir) })
}

func TestConformanceWithoutSyncs(t *testing.T) {
	indextest.Run(t, func(t *testing.T, dir string) engine.Index {
		return mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
	})
}

// open opens the index in dir, which stays open until the test ends.
func open(ctx context.Context, t testing.TB, dir string, cfg boltindex.Config) (*boltindex.Index, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	cfg.Root = root
	return boltindex.Open(ctx, cfg)
}

func mustOpenConfig(t testing.TB, dir string, cfg boltindex.Config) *boltindex.Index {
	t.Helper()
	cfg.Create = true
	cfg.Organization = storage.OrganizationBySession
	x, err := open(context.Background(), t, dir, cfg)
	require.NoError(t, err)
	return x
}

func mustOpen(t testing.TB, dir string) *boltindex.Index {
	t.Helper()
	return mustOpenConfig(t, dir, boltindex.Config{})
}

// mustClose verifies and closes the index.
func mustClose(t testing.TB, x *boltindex.Index) {
	t.Helper()
	findings, err := x.Verify(context.Background())
	require.NoError(t, err)
	require.Empty(t, findings)
	require.NoError(t, x.Close())
}

// path is the index's file in dir.
func path(dir string) string { return filepath.Join(dir, "index.db") }

// edit changes the index's file in dir with bbolt itself, the index closed.
func edit(t testing.TB, dir string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path(dir), 0o600, &bolt.Options{Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
}
