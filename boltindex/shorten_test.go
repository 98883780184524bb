package boltindex_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// Two IDs whose hashes are the same share a list, and neither has the references of
// the other.
func TestIDsThatShareAList(t *testing.T) {
	const one, other = "session-591292", "session-9865323"
	require.Equal(t, boltindex.MemberKey(one, storage.UUID{}), boltindex.MemberKey(other, storage.UUID{}), "found by trying")
	x := mustOpen(t, t.TempDir())
	a, b, c := storage.UUID{0: 1}, storage.UUID{0: 2}, storage.UUID{0: 3}
	mustAdd(t, x, a, storage.MediaMetadata{SessionID: one})
	mustAdd(t, x, b, storage.MediaMetadata{SessionID: other})
	mustAdd(t, x, c, storage.MediaMetadata{SessionID: one})
	of := func(id string) (list []storage.UUID) {
		page, _, more, err := x.Refs(t.Context(), storage.RefFilter{SessionID: id}, storage.UUID{}, 10)
		require.NoError(t, err)
		require.False(t, more)
		for _, p := range page {
			list = append(list, p.Ref.UUID)
		}
		return list
	}
	require.Equal(t, []storage.UUID{a, c}, of(one))
	require.Equal(t, []storage.UUID{b}, of(other))
	_, err := x.Remove(t.Context(), idOf(a))
	require.NoError(t, err)
	require.Equal(t, []storage.UUID{c}, of(one))
	require.Equal(t, []storage.UUID{b}, of(other))
	findings, err := x.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, findings)
}
