package boltindex_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// addition asks for a reference to a blob of its own digest, which is the
// UUID's last byte.
func addition(u storage.UUID, m storage.MediaMetadata) *storage.Addition {
	digest := storage.Digest{0: u[15], 31: 1}
	key := storage.DigestKey(digest)
	return &storage.Addition{
		Ref: storage.RefRow{UUID: u, Blob: key, Type: "image", MimeType: "image/png", Metadata: m},
		Blob: storage.BlobRow{
			Key: key, Path: "s/c/" + hex.EncodeToString(digest[:3]) + "-" + u.String() + ".png", Size: 1000, Digest: digest,
			Organization: storage.OrganizationBySession, MimeType: "image/png",
		},
		Staged: true,
	}
}

func idOf(u storage.UUID) storage.ID { return storage.ID{Hash: [3]byte{u[15]}, UUID: u} }

func mustAdd(t testing.TB, x *boltindex.Index, u storage.UUID, m storage.MediaMetadata) {
	t.Helper()
	_, err := x.Add(context.Background(), addition(u, m))
	require.NoError(t, err)
}

func countersOf(t testing.TB, x *boltindex.Index) storage.Counters {
	t.Helper()
	c, err := x.Counters(context.Background())
	require.NoError(t, err)
	return c
}

// uuids are those of all references.
func uuids(t testing.TB, x *boltindex.Index) []storage.UUID {
	t.Helper()
	var list []storage.UUID
	var after storage.UUID
	for {
		page, next, more, err := x.Refs(context.Background(), storage.RefFilter{}, after, 100)
		require.NoError(t, err)
		for _, pair := range page {
			list = append(list, pair.Ref.UUID)
		}
		if !more {
			return list
		}
		after = next
	}
}

// inspect reads the index's file in dir with bbolt itself, the index closed.
func inspect(t testing.TB, dir string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path(dir), 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(fn))
	require.NoError(t, db.Close())
}

// transactions is the number of the last transaction committed to the index in
// dir, which is closed.
func transactions(t testing.TB, dir string) (id int) {
	t.Helper()
	inspect(t, dir, func(tx *bolt.Tx) error { id = tx.ID(); return nil })
	return id
}

func TestConcurrentAddsShareTransactions(t *testing.T) {
	const writers, each = 64, 10
	dir := t.TempDir()
	require.NoError(t, mustOpen(t, dir).Close())
	before := transactions(t, dir)
	x := mustOpen(t, dir)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				_, err := x.Add(context.Background(), addition(storage.UUID{0: byte(w), 1: byte(i + 1), 15: byte(w)}, storage.MediaMetadata{}))
				if err != nil {
					t.Errorf("add: %v", err)
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, writers*each, len(uuids(t, x)))
	mustClose(t, x)
	require.Less(t, transactions(t, dir)-before, writers*each/2)
}

func TestNothingToDoCostsNoTransaction(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	x := mustOpen(t, dir)
	mustAdd(t, x, storage.UUID{1}, storage.MediaMetadata{})
	mustClose(t, x)
	before := transactions(t, dir)
	x = mustOpen(t, dir)
	for range 10 {
		removal, err := x.Remove(ctx, idOf(storage.UUID{2}))
		require.NoError(t, err)
		require.False(t, removal.Found)
		require.NoError(t, x.Settle(ctx, storage.Debt{}))
	}
	mustClose(t, x)
	require.Equal(t, before, transactions(t, dir))
}

// A page looks at a bounded number of rows, so that a filter which lets little
// through may come back empty and yet not be at its end.
func TestFilterThatLetsLittleThrough(t *testing.T) {
	const count = 5000
	dir := t.TempDir()
	x := mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
	var all sync.WaitGroup
	const writers = 64
	for w := range writers {
		all.Go(func() {
			for i := w; i < count; i += writers {
				m := storage.MediaMetadata{SessionID: "s"}
				if i == count-1 {
					m.ConversationID = "c"
				}
				u := storage.UUID{0: byte(i >> 8), 1: byte(i), 2: 1}
				if _, err := x.Add(context.Background(), addition(u, m)); err != nil {
					t.Errorf("add: %v", err)
				}
			}
		})
	}
	all.Wait()
	ctx := t.Context()
	filter := storage.RefFilter{SessionID: "s", ConversationID: "c"}
	page, next, more, err := x.Refs(ctx, filter, storage.UUID{}, 10)
	require.NoError(t, err)
	require.Empty(t, page)
	require.True(t, more)
	for pages := 1; more && len(page) == 0; pages++ {
		require.Less(t, pages, count, "every page gets on")
		page, next, more, err = x.Refs(ctx, filter, next, 10)
		require.NoError(t, err)
	}
	require.Len(t, page, 1)
	require.False(t, more)
	mustClose(t, x)
}

// Without syncs an index is as whole when its process ends in order.
func TestNoSync(t *testing.T) {
	dir := t.TempDir()
	x := mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
	for i := range byte(50) {
		mustAdd(t, x, storage.UUID{0: i + 1, 15: i % 5}, storage.MediaMetadata{SessionID: fmt.Sprint(i % 3)})
	}
	require.NoError(t, x.Close())
	x = mustOpen(t, dir)
	require.Equal(t, 50, len(uuids(t, x)))
	mustClose(t, x)
}
