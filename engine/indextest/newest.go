package indextest

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// Newest first is oldest first in reverse, in pages of every size and from every
// place.
func testNewest(f *fixture) {
	ids := f.addMany(25, func(n uint64) *storage.Addition {
		return newAddition(fmt.Sprint("blob ", n%3), n, storage.MediaMetadata{SessionID: "s", RunID: "r"})
	})
	f.addMany(5, func(n uint64) *storage.Addition {
		return newAddition("other", n, storage.MediaMetadata{SessionID: "s2", RunID: "r"})
	})
	want := uuidsOf(ids)
	slices.Reverse(want)
	for _, limit := range []int{1, 2, 3, 7, 24, 25, 26, 1000} {
		require.Equal(f.t, want, uuids(f.refs(storage.RefFilter{SessionID: "s", Newest: true}, limit)), "limit %d", limit)
		all := uuids(f.refs(storage.RefFilter{}, limit))
		slices.Reverse(all)
		require.Equal(f.t, all, uuids(f.refs(storage.RefFilter{Newest: true}, limit)), "limit %d", limit)
		require.Len(f.t, all, 30)
	}
	for _, filter := range []storage.RefFilter{{SessionID: "s", Newest: true}, {SessionID: "s", RunID: "r", Newest: true}} {
		for i := range want {
			page, next, more, err := f.x.Refs(f.ctx, filter, want[i], 4)
			require.NoError(f.t, err)
			last := min(i+4, len(want)-1)
			require.ElementsMatch(f.t, want[i+1:last+1], uuids(page))
			if last < len(want)-1 {
				require.True(f.t, more)
				require.Equal(f.t, want[last], next)
			}
		}
		_, next, more, err := f.x.Refs(f.ctx, filter, want[len(want)-1], 4)
		require.NoError(f.t, err)
		require.False(f.t, more)
		require.Equal(f.t, want[len(want)-1], next)
	}
	require.Empty(f.t, f.refs(storage.RefFilter{SessionID: "nobody", Newest: true}, 3))
	// A place between two references is one to go on from as well.
	between := want[7]
	between[15]++
	page, _, _, err := f.x.Refs(f.ctx, storage.RefFilter{SessionID: "s", Newest: true}, between, 2)
	require.NoError(f.t, err)
	require.Equal(f.t, want[7:9], uuids(page))
	f.reopen()
	require.Equal(f.t, want, uuids(f.refs(storage.RefFilter{SessionID: "s", Newest: true}, 10)))
}

// A listing goes on where it was when the reference that the last page ended with
// is gone, and shows nothing of what came since, which is before it.
func testNewestWhileChanging(f *fixture) {
	ids := f.addMany(12, func(n uint64) *storage.Addition {
		return newAddition("a", n, storage.MediaMetadata{UserID: "u"})
	})
	filter := storage.RefFilter{UserID: "u", Newest: true}
	page, next, more, err := f.x.Refs(f.ctx, filter, storage.UUID{}, 5)
	require.NoError(f.t, err)
	require.True(f.t, more)
	slices.Reverse(ids)
	require.Equal(f.t, uuidsOf(ids[:5]), uuids(page))
	f.mustRemove(ids[4])
	f.mustRemove(ids[5])
	late := f.mustAdd("b", storage.MediaMetadata{UserID: "u"})
	page, _, _, err = f.x.Refs(f.ctx, filter, next, 100)
	require.NoError(f.t, err)
	require.Equal(f.t, uuidsOf(ids[6:]), uuids(page))
	page, _, _, err = f.x.Refs(f.ctx, filter, storage.UUID{}, 1)
	require.NoError(f.t, err)
	require.Equal(f.t, []storage.UUID{late.UUID}, uuids(page))
	for _, id := range append(ids[6:], ids[:4]...) {
		f.mustRemove(id)
	}
	f.mustRemove(late)
	require.Empty(f.t, f.refs(filter, 5))
}
