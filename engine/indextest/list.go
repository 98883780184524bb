package indextest

import (
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// lists are the ways to narrow a listing to one ID.
var lists = []struct {
	name     string
	kind     storage.IDKind
	metadata func(id string) storage.MediaMetadata
	filter   func(id string) storage.RefFilter
}{
	{"session", storage.SessionIDs, func(id string) storage.MediaMetadata { return storage.MediaMetadata{SessionID: id} },
		func(id string) storage.RefFilter { return storage.RefFilter{SessionID: id} }},
	{"conversation", storage.ConversationIDs, func(id string) storage.MediaMetadata { return storage.MediaMetadata{ConversationID: id} },
		func(id string) storage.RefFilter { return storage.RefFilter{ConversationID: id} }},
	{"run", storage.RunIDs, func(id string) storage.MediaMetadata { return storage.MediaMetadata{RunID: id} },
		func(id string) storage.RefFilter { return storage.RefFilter{RunID: id} }},
	{"user", storage.UserIDs, func(id string) storage.MediaMetadata { return storage.MediaMetadata{UserID: id} },
		func(id string) storage.RefFilter { return storage.RefFilter{UserID: id} }},
}

// addMany adds count references at once, so that an index which groups changes
// has company for each.
func (f *fixture) addMany(count int, addition func(n uint64) *storage.Addition) []storage.ID {
	f.t.Helper()
	ids := make([]storage.ID, count)
	errs := make([]error, count)
	var writers sync.WaitGroup
	const width = 64
	first := f.made
	for w := range width {
		writers.Go(func() {
			for i := w; i < count; i += width {
				add := addition(first + uint64(i) + 1)
				ids[i] = idOf(add)
				_, errs[i] = f.x.Add(f.ctx, add)
			}
		})
	}
	writers.Wait()
	f.made += uint64(count)
	for _, err := range errs {
		require.NoError(f.t, err)
	}
	return ids
}

// The same ID as a session, a conversation, a run and a user is four lists.
func testLists(f *fixture) {
	want := map[string][]storage.UUID{}
	for round := range 3 {
		for _, list := range lists {
			id := f.mustAdd(fmt.Sprintf("blob %d", round), list.metadata("same"))
			want[list.name] = append(want[list.name], id.UUID)
		}
		f.mustAdd("a", storage.MediaMetadata{})
	}
	for _, list := range lists {
		require.Equal(f.t, want[list.name], uuids(f.refs(list.filter("same"), 2)), list.name)
		require.Empty(f.t, f.refs(list.filter("other"), 2), list.name)
	}
	require.Len(f.t, f.refs(storage.RefFilter{}, 4), 15)
}

// hostileIDs are near one another in ways that a careless key would confuse.
func hostileIDs() []string {
	nul := "\x00"
	inside := "a" + nul + "0123456789abcdef" // as long as an ID, a NUL and a UUID
	return []string{
		"a", "ab", "abc", "A", "a ", " a", "a%", "a_", "a*", "%", "_", "a'", `a"`, `a\`, "a/b", "../a",
		nul, nul + nul, "a" + nul, nul + "a", "a" + nul + "a", "a" + nul + nul, inside, inside + nul, inside + nul + inside,
		"会話", "会", "é", "e\u0301", "\U0001F600", "\u007f", "\u0080", "\ufffd", "\U0010ffff",
		text(storage.MaxIDLength), text(storage.MaxIDLength - 1), text(storage.MaxIDLength-1) + "y", text(storage.MaxIDLength-1) + nul,
	}
}

func testHostileIDs(f *fixture) {
	ids := hostileIDs()
	for _, list := range lists {
		want := map[string][]storage.UUID{}
		for range 3 {
			made := f.addMany(len(ids), func(n uint64) *storage.Addition {
				return newAddition("a", n, list.metadata(ids[(n-1)%uint64(len(ids))]))
			})
			for i, id := range made {
				want[ids[i]] = append(want[ids[i]], id.UUID)
			}
		}
		for _, id := range ids {
			require.Equal(f.t, want[id], uuids(f.refs(list.filter(id), 2)), "%s %.40q", list.name, id)
		}
		for i, id := range ids {
			if i%2 == 0 {
				removed := storage.ID{UUID: want[id][1]}
				digest := digestOf("a")
				copy(removed.Hash[:], digest[:])
				require.True(f.t, f.mustRemove(removed).Found)
				want[id] = append(want[id][:1:1], want[id][2])
			}
		}
		for _, id := range ids {
			require.Equal(f.t, want[id], uuids(f.refs(list.filter(id), 100)), "%s %.40q", list.name, id)
		}
	}
}

func testRefPages(f *fixture) {
	ids := f.addMany(25, func(n uint64) *storage.Addition {
		return newAddition(fmt.Sprint("blob ", n%3), n, storage.MediaMetadata{SessionID: "s", RunID: "r"})
	})
	f.addMany(5, func(n uint64) *storage.Addition {
		return newAddition("other", n, storage.MediaMetadata{SessionID: "s2"})
	})
	want := uuidsOf(ids)
	for _, limit := range []int{1, 2, 3, 7, 24, 25, 26, 1000} {
		require.Equal(f.t, want, uuids(f.refs(storage.RefFilter{SessionID: "s"}, limit)), "limit %d", limit)
		require.Len(f.t, f.refs(storage.RefFilter{}, limit), 30, "limit %d", limit)
	}
	for _, filter := range []storage.RefFilter{{SessionID: "s"}, {RunID: "r"}, {SessionID: "s", RunID: "r"}} {
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
		require.Equal(f.t, want[len(want)-1], next, "where there is nothing more, a later call goes on from there")
	}
}

// A listing goes on where it was, also when the reference that the last page
// ended with is gone, and shows what was added behind it.
func testRefPagesWhileRemoving(f *fixture) {
	ids := f.addMany(12, func(n uint64) *storage.Addition {
		return newAddition("a", n, storage.MediaMetadata{UserID: "u"})
	})
	page, next, more, err := f.x.Refs(f.ctx, storage.RefFilter{UserID: "u"}, storage.UUID{}, 5)
	require.NoError(f.t, err)
	require.True(f.t, more)
	require.Equal(f.t, uuidsOf(ids[:5]), uuids(page))
	f.mustRemove(ids[4])
	f.mustRemove(ids[5])
	late := f.mustAdd("b", storage.MediaMetadata{UserID: "u"})
	page, _, _, err = f.x.Refs(f.ctx, storage.RefFilter{UserID: "u"}, next, 100)
	require.NoError(f.t, err)
	require.Equal(f.t, append(uuidsOf(ids[6:]), late.UUID), uuids(page))
}

func testCombinedFilters(f *fixture) {
	of := func(n uint64) storage.MediaMetadata {
		return storage.MediaMetadata{
			SessionID: fmt.Sprint("s", n%2), ConversationID: fmt.Sprint("c", n%3),
			RunID: fmt.Sprint("r", n%5), UserID: fmt.Sprint("u", n%7),
		}
	}
	const count = 210
	f.addMany(count, func(n uint64) *storage.Addition { return newAddition(fmt.Sprint("blob ", n%11), n, of(n)) })
	filters := []storage.RefFilter{
		{}, {SessionID: "s1", ConversationID: "c2"}, {ConversationID: "c0", RunID: "r4"}, {RunID: "r0", UserID: "u0"},
		{SessionID: "s0", UserID: "u6"}, {SessionID: "s1", ConversationID: "c1", RunID: "r1", UserID: "u1"},
		{SessionID: "s1", ConversationID: "s1"}, {SessionID: "s0", RunID: "nowhere"},
	}
	for _, filter := range filters {
		var want []storage.UUID
		for n := uint64(1); n <= count; n++ {
			if m := of(n); filter.Matches(&storage.RefPair{Ref: storage.RefRow{Metadata: m}}) {
				want = append(want, uuidOf(n))
			}
		}
		for _, limit := range []int{1, 10, count} {
			require.ElementsMatch(f.t, want, uuids(f.refs(filter, limit)), "%+v", filter)
		}
	}
}

func testBlobPages(f *fixture) {
	require.Empty(f.t, f.blobRows(3))
	f.addMany(23, func(n uint64) *storage.Addition {
		add := newAddition(fmt.Sprint("blob ", n), n, storage.MediaMetadata{})
		if n%4 == 0 {
			add.Ref.Blob = storage.UUIDKey(add.Ref.UUID)
			add.Blob.Key = add.Ref.Blob
		}
		return add
	})
	all := f.blobRows(1000)
	require.Len(f.t, all, 23)
	for _, limit := range []int{1, 2, 22, 23, 24} {
		require.Equal(f.t, all, f.blobRows(limit), "limit %d", limit)
	}
	for _, b := range all {
		require.Equal(f.t, int64(1), b.Refs)
		require.Equal(f.t, b, f.mustBlob(b.Key))
	}
	// A key that is not there is a place to go on from as well.
	absent := all[9].Key[:len(all[9].Key)-1]
	page, err := f.x.Blobs(f.ctx, absent, 3)
	require.NoError(f.t, err)
	require.Equal(f.t, all[9:12], page)
	page, err = f.x.Blobs(f.ctx, "v", 3)
	require.NoError(f.t, err)
	require.Empty(f.t, page)
}

// testReadersBesideWriters checks that every page that a reader gets while
// others write is one that a moment showed: each pair whole, each refcount
// positive.
func testReadersBesideWriters(f *fixture) {
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for w := range uint64(4) {
		writers.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				add := newAddition(fmt.Sprint("blob ", i%3), w<<32|i, storage.MediaMetadata{SessionID: "s"})
				blob, err := f.x.Add(f.ctx, add)
				if err == nil && i%3 != 0 {
					_, err = f.x.Remove(f.ctx, idOf(add))
				}
				if err != nil || blob.Refs < 1 {
					f.t.Errorf("add and remove: %v, row %+v", err, blob)
					return
				}
			}
		})
	}
	deadline := time.Now().Add(200 * time.Millisecond)
	for range 3 {
		readers.Go(func() {
			for time.Now().Before(deadline) {
				page, _, _, err := f.x.Refs(f.ctx, storage.RefFilter{SessionID: "s"}, storage.UUID{}, 50)
				if err != nil {
					f.t.Errorf("refs: %v", err)
					return
				}
				for _, pair := range page {
					if pair.Blob.Refs < 1 || pair.Blob.Key != pair.Ref.Blob {
						f.t.Errorf("pair %+v", pair)
					}
				}
				c, err := f.x.Counters(f.ctx)
				if err != nil || c.Refs < c.Blobs || c.LogicalBytes < c.PhysicalBytes {
					f.t.Errorf("counters %+v: %v", c, err)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}
