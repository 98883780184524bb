package boltindex_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// IDs whose hashes are the same share a list, and none has the references of
// another. Since nobody knows two such IDs, an entry is put into the other list.
func TestIDsThatShareAList(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	a, b, c := storage.UUID{0: 1}, storage.UUID{0: 2}, storage.UUID{0: 3}
	mustAdd(t, x, a, storage.MediaMetadata{SessionID: "one"})
	mustAdd(t, x, b, storage.MediaMetadata{SessionID: "other"})
	mustAdd(t, x, c, storage.MediaMetadata{SessionID: "one"})
	mustClose(t, x)
	edit(t, dir, func(tx *bolt.Tx) error {
		if err := drop("by_session", boltindex.MemberKey("other", b))(tx); err != nil {
			return err
		}
		return put("by_session", boltindex.MemberKey("one", b))(tx)
	})
	x = mustOpen(t, dir)
	ids, err := x.IDs(t.Context(), storage.SessionIDs, "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"one"}, ids, "the first stands for all")
	for _, newest := range []bool{false, true} {
		page, _, more, err := x.Refs(t.Context(), storage.RefFilter{SessionID: "one", Newest: newest}, storage.UUID{}, 10)
		require.NoError(t, err)
		require.False(t, more)
		require.Len(t, page, 2)
		for _, p := range page {
			require.Equal(t, "one", p.Ref.Metadata.SessionID)
		}
	}
	require.NoError(t, x.Close())
}

// Lists of IDs that are too short, or name no reference, are damage, and not IDs.
func TestDamagedListsOfIDs(t *testing.T) {
	for what, key := range map[string][]byte{
		"too short":       []byte("x"),
		"of no reference": boltindex.MemberKey("s", storage.UUID{0: 7}),
		"of another user": boltindex.MemberKey("other", storage.UUID{0: 1}),
		"of no user":      boltindex.MemberKey("", storage.UUID{0: 2}),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			x := mustOpen(t, dir)
			mustAdd(t, x, storage.UUID{0: 1}, storage.MediaMetadata{UserID: "u"})
			mustAdd(t, x, storage.UUID{0: 2}, storage.MediaMetadata{})
			mustClose(t, x)
			edit(t, dir, put("by_user", key))
			x = mustOpen(t, dir)
			_, err := x.IDs(t.Context(), storage.UserIDs, "", 10)
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.NoError(t, x.Close())
		})
	}
}
