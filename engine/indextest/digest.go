package indextest

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// addOwn adds a reference to a blob of its own with the bytes called name, whose
// digest may be unknown.
func (f *fixture) addOwn(name string, known bool) storage.ID {
	f.t.Helper()
	add := f.next(name, storage.MediaMetadata{SessionID: "own"})
	add.Ref.Blob = storage.UUIDKey(add.Ref.UUID)
	add.Blob.Key = add.Ref.Blob
	if !known {
		add.Blob.Digest = storage.Digest{}
	}
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	return idOf(add)
}

// requireDigest compares the list of the digest of name, in both orders.
func (f *fixture) requireDigest(name string, want ...storage.ID) {
	f.t.Helper()
	list := uuidsOf(want)
	slices.SortFunc(list, func(a, b storage.UUID) int { return slices.Compare(a[:], b[:]) })
	for _, limit := range []int{1, 2, 100} {
		require.Equal(f.t, list, uuids(f.refs(storage.RefFilter{Digest: digestOf(name)}, limit)), "%s, oldest first", name)
		reverse := slices.Clone(list)
		slices.Reverse(reverse)
		require.Equal(f.t, reverse, uuids(f.refs(storage.RefFilter{Digest: digestOf(name), Newest: true}, limit)), "%s, newest first", name)
	}
}

// Everyone with bytes of a digest is listed, whoever came first or has left, and
// however the bytes are kept.
func testDigestLists(f *fixture) {
	first := f.mustAdd("a", storage.MediaMetadata{SessionID: "s1"})
	f.requireDigest("a", first)
	own := f.addOwn("a", true)
	f.addOwn("a", false)
	second := f.mustAdd("a", storage.MediaMetadata{SessionID: "s2"})
	third := f.mustAdd("a", storage.MediaMetadata{SessionID: "s2", UserID: "u"})
	other := f.mustAdd("b", storage.MediaMetadata{SessionID: "s2"})
	f.requireDigest("a", first, own, second, third)
	f.requireDigest("b", other)
	f.requireDigest("c")
	require.Equal(f.t, []storage.UUID{second.UUID, third.UUID}, uuids(f.refs(storage.RefFilter{Digest: digestOf("a"), SessionID: "s2"}, 1)))
	require.Equal(f.t, []storage.UUID{third.UUID}, uuids(f.refs(storage.RefFilter{Digest: digestOf("a"), UserID: "u", Newest: true}, 1)))
	f.reopen()
	f.requireDigest("a", first, own, second, third)

	f.mustRemove(first)
	f.requireDigest("a", own, second, third)
	f.mustRemove(third)
	f.requireDigest("a", own, second)
	fourth := f.mustAdd("a", storage.MediaMetadata{})
	f.requireDigest("a", own, second, fourth)
	for _, id := range []storage.ID{second, fourth} {
		f.mustRemove(id)
	}
	f.requireDigest("a", own)
	again := f.mustAdd("a", storage.MediaMetadata{})
	f.requireDigest("a", own, again)
	f.mustRemove(own)
	f.mustRemove(again)
	f.requireDigest("a")

	// Whose UUID was made first may come second.
	early, late := newAddition("d", f.made+1, storage.MediaMetadata{}), newAddition("d", f.made+2, storage.MediaMetadata{})
	f.made += 2
	for _, add := range []*storage.Addition{late, early} {
		_, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
	}
	lateID := storage.ID{Hash: idOf(early).Hash, UUID: late.Ref.UUID}
	f.requireDigest("d", idOf(early), lateID)
	f.mustRemove(lateID)
	f.requireDigest("d", idOf(early))
}

// The list of a digest goes on behind any place, the founder's and gone ones
// included.
func testDigestPages(f *fixture) {
	ids := f.addMany(40, func(n uint64) *storage.Addition {
		return newAddition("a", n, storage.MediaMetadata{SessionID: fmt.Sprint(n % 2)})
	})
	want := uuidsOf(ids)
	for _, newest := range []bool{false, true} {
		filter := storage.RefFilter{Digest: digestOf("a"), Newest: newest}
		for i := range want {
			page, _, _, err := f.x.Refs(f.ctx, filter, want[i], 3)
			require.NoError(f.t, err)
			require.ElementsMatch(f.t, want[i+1:min(i+4, len(want))], uuids(page))
		}
		slices.Reverse(want)
	}
	for i, id := range ids {
		if i%3 == 0 {
			f.mustRemove(id)
		}
	}
	page, _, _, err := f.x.Refs(f.ctx, storage.RefFilter{Digest: digestOf("a")}, ids[3].UUID, 3)
	require.NoError(f.t, err)
	require.Equal(f.t, uuidsOf([]storage.ID{ids[4], ids[5], ids[7]}), uuids(page))
}

// addScoped adds a reference to the blob of the bytes called name that a scope has.
func (f *fixture) addScoped(name string, scope storage.Scope) storage.ID {
	f.t.Helper()
	add := f.next(name, storage.MediaMetadata{SessionID: "scoped"})
	add.Ref.Blob = storage.ScopedKey(digestOf(name), scope)
	add.Blob.Key = add.Ref.Blob
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	return idOf(add)
}

// Blobs of the same digest in several scopes, one that everybody shares, and one of
// its own, know nothing of each other, except that all are in the list of the
// digest.
func testScopes(f *fixture) {
	one, other := storage.Scope{1}, storage.Scope{15: 2}
	first := f.addScoped("a", one)
	elsewhere := f.addScoped("a", other)
	global := f.mustAdd("a", storage.MediaMetadata{})
	own := f.addOwn("a", true)
	second := f.addScoped("a", one)
	f.requireDigest("a", first, elsewhere, global, own, second)
	counts := func(want map[storage.BlobKey]int64) {
		f.t.Helper()
		got := map[storage.BlobKey]int64{}
		page, err := f.x.Blobs(f.ctx, "", 10)
		require.NoError(f.t, err)
		for _, blob := range page {
			got[blob.Key] = blob.Refs
			require.Equal(f.t, digestOf("a"), blob.Digest)
		}
		require.Equal(f.t, want, got)
	}
	keyOne, keyOther := storage.ScopedKey(digestOf("a"), one), storage.ScopedKey(digestOf("a"), other)
	counts(map[storage.BlobKey]int64{keyOne: 2, keyOther: 1, keyOf("a"): 1, storage.UUIDKey(own.UUID): 1})
	f.reopen()
	f.requireDigest("a", first, elsewhere, global, own, second)

	require.False(f.t, f.mustRemove(first).Last)
	f.requireDigest("a", elsewhere, global, own, second)
	require.True(f.t, f.mustRemove(elsewhere).Last)
	require.True(f.t, f.mustRemove(global).Last)
	f.requireDigest("a", own, second)
	counts(map[storage.BlobKey]int64{keyOne: 1, storage.UUIDKey(own.UUID): 1})
	require.True(f.t, f.mustRemove(second).Last)
	f.requireDigest("a", own)
	again := f.addScoped("a", other)
	f.requireDigest("a", own, again)
}

// Every ID that a live reference has is told once, however many do.
func testIDs(f *fixture) {
	hostile := hostileIDs()
	for _, list := range lists {
		var made []storage.ID // the second half has the IDs of the first once more
		for range 2 {
			made = append(made, f.addMany(len(hostile), func(n uint64) *storage.Addition {
				return newAddition("a", n, list.metadata(hostile[(n-1)%uint64(len(hostile))]))
			})...)
		}
		want := slices.Sorted(slices.Values(hostile))
		for _, limit := range []int{1, 2, len(want) - 1, len(want), len(want) + 1} {
			require.Equal(f.t, want, f.ids(list.kind, limit), "%s, limit %d", list.name, limit)
		}
		for i, id := range made[:len(hostile)] {
			require.True(f.t, f.mustRemove(id).Found)
			if i > 0 {
				require.True(f.t, f.mustRemove(made[len(hostile)+i]).Found)
			}
		}
		require.Equal(f.t, hostile[:1], f.ids(list.kind, 10), list.name)
	}
}

func testIDsOfMany(f *fixture) {
	f.addMany(300, func(n uint64) *storage.Addition {
		return newAddition(fmt.Sprint("blob ", n%7), n, storage.MediaMetadata{
			SessionID: fmt.Sprint("s", n%5), RunID: fmt.Sprint("r", n), ConversationID: "c",
		})
	})
	require.Equal(f.t, []string{"s0", "s1", "s2", "s3", "s4"}, f.ids(storage.SessionIDs, 2))
	require.Equal(f.t, []string{"c"}, f.ids(storage.ConversationIDs, 1))
	require.Len(f.t, f.ids(storage.RunIDs, 64), 300)
	require.Empty(f.t, f.ids(storage.UserIDs, 64))
	f.reopen()
	require.Len(f.t, f.ids(storage.RunIDs, 7), 300)
}
