package indextest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// expireAt revises a reference to expire at a time.
func expireAt(at time.Time) func(*storage.RefRow) bool {
	return func(ref *storage.RefRow) bool {
		ref.ExpiresAt = at
		return true
	}
}

func (f *fixture) mustRevise(id storage.ID, revise func(*storage.RefRow) bool) storage.RefPair {
	f.t.Helper()
	pair, err := f.x.Revise(f.ctx, id, revise)
	require.NoError(f.t, err)
	return pair
}

func (f *fixture) usage(kind storage.IDKind, id string) storage.Usage {
	f.t.Helper()
	u, err := f.x.Usage(f.ctx, kind, id)
	require.NoError(f.t, err)
	return u
}

// readDue is every reference that expires before a time, in pages of limit, each
// checked.
func readDue(t require.TestingT, x engine.Index, before time.Time, limit int) []storage.RefPair {
	var all []storage.RefPair
	var after storage.Place
	for {
		page, next, more, err := x.Due(context.Background(), before, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		for i := range page {
			ref := &page[i].Ref
			require.True(t, ref.ExpiresAt.Before(before), "%v is not due", ref.ExpiresAt)
			require.True(t, comparePlace(after, placeOf(ref)) < 0, "out of order")
			after = placeOf(ref)
		}
		require.Equal(t, after, next)
		all = append(all, page...)
		if !more {
			return all
		}
	}
}

func placeOf(ref *storage.RefRow) storage.Place {
	return storage.Place{At: ref.ExpiresAt, UUID: ref.UUID}
}

func comparePlace(a, b storage.Place) int {
	if c := a.At.Compare(b.At); c != 0 {
		return c
	}
	return bytes.Compare(a.UUID[:], b.UUID[:])
}

func testUsage(f *fixture) {
	a, b := newAddition("a", 1, storage.MediaMetadata{}).Blob.Size, newAddition("b", 1, storage.MediaMetadata{}).Blob.Size
	require.Zero(f.t, f.usage(storage.SessionIDs, "s"))
	one := f.mustAdd("a", storage.MediaMetadata{SessionID: "s", UserID: "u"})
	two := f.mustAdd("a", storage.MediaMetadata{SessionID: "s", UserID: "u2"})
	f.mustAdd("b", storage.MediaMetadata{SessionID: "s\x00", UserID: "u"})
	f.mustAdd("b", storage.MediaMetadata{ConversationID: "s", RunID: "u"})
	require.Equal(f.t, storage.Usage{Refs: 2, Bytes: 2 * a}, f.usage(storage.SessionIDs, "s"))
	require.Equal(f.t, storage.Usage{Refs: 1, Bytes: b}, f.usage(storage.SessionIDs, "s\x00"))
	require.Equal(f.t, storage.Usage{Refs: 2, Bytes: a + b}, f.usage(storage.UserIDs, "u"))
	require.Zero(f.t, f.usage(storage.UserIDs, "s"))
	require.Zero(f.t, f.usage(storage.SessionIDs, "nobody"))
	f.reopen()
	f.mustRemove(one)
	require.Equal(f.t, storage.Usage{Refs: 1, Bytes: a}, f.usage(storage.SessionIDs, "s"))
	require.Equal(f.t, storage.Usage{Refs: 1, Bytes: b}, f.usage(storage.UserIDs, "u"))
	f.mustRemove(two)
	require.Zero(f.t, f.usage(storage.SessionIDs, "s"))
	_, err := f.x.Usage(f.ctx, storage.RunIDs, "r")
	require.ErrorIs(f.t, err, storage.ErrInvalidQuery)
}

func testRevise(f *fixture) {
	m := storage.MediaMetadata{SessionID: "s", Policy: "retain", Labels: map[string]string{"k": "v"}}
	id := f.mustAdd("a", m)
	before, _, err := f.x.Ref(f.ctx, id)
	require.NoError(f.t, err)
	at := creation(1).Add(time.Hour)
	pair := f.mustRevise(id, func(ref *storage.RefRow) bool {
		ref.Metadata.Policy, ref.ExpiresAt, ref.Count = "1h", at, 3
		return true
	})
	want := before
	want.Metadata.Policy, want.ExpiresAt, want.Count, want.Revision = "1h", at, 3, 1
	requireRef(f.t, want, pair.Ref)
	require.Equal(f.t, f.mustBlob(keyOf("a")), pair.Blob)
	f.reopen()
	ref, _, err := f.x.Ref(f.ctx, id)
	require.NoError(f.t, err)
	requireRef(f.t, want, ref)
	lines := []storage.Mirror{{UUID: id.UUID, Blob: keyOf("a")}, {UUID: id.UUID, Revision: 1, Blob: keyOf("a")}}
	requireDebt(f.t, storage.Debt{Mirrors: lines}, f.debt())

	state := f.snapshot()
	pair = f.mustRevise(id, func(*storage.RefRow) bool { return false })
	requireRef(f.t, want, pair.Ref)
	require.Equal(f.t, state, f.snapshot())

	// The line of one revision is paid, that of the next is not.
	f.mustRevise(id, expireAt(time.Time{}))
	require.NoError(f.t, f.x.Settle(f.ctx, storage.Debt{Mirrors: lines}))
	requireDebt(f.t, storage.Debt{Mirrors: []storage.Mirror{{UUID: id.UUID, Revision: 2, Blob: keyOf("a")}}}, f.debt())

	otherHash := id
	otherHash.Hash[0] ^= 1
	for _, unknown := range []storage.ID{{UUID: uuidOf(1 << 40)}, otherHash} {
		_, err = f.x.Revise(f.ctx, unknown, expireAt(at))
		require.ErrorIs(f.t, err, storage.ErrNotFound)
	}
}

// Of a reference that counts three, two removals take one each.
func testCounted(f *fixture) {
	add := f.next("a", storage.MediaMetadata{SessionID: "s"})
	add.Ref.Count = 3
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	row := f.mustBlob(add.Blob.Key)
	counters, used := f.counters(), f.usage(storage.SessionIDs, "s")
	for left := int64(2); left > 0; left-- {
		want := add.Ref
		want.Count, want.Revision = left, uint32(3-left)
		removal := f.mustRemove(idOf(add))
		requireRef(f.t, want, removal.Ref)
		removal.Ref = storage.RefRow{}
		require.Equal(f.t, storage.Removal{Found: true, Counted: true, Blob: row}, removal)
		require.Equal(f.t, counters, f.counters())
		require.Equal(f.t, used, f.usage(storage.SessionIDs, "s"))
		f.reopen()
	}
	require.True(f.t, f.mustRemove(idOf(add)).Last)
	f.requireGone(idOf(add))

	add = f.next("b", storage.MediaMetadata{})
	add.Ref.Count = 9
	_, err = f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	removal, err := f.x.End(f.ctx, idOf(add), time.Time{})
	require.NoError(f.t, err)
	require.True(f.t, removal.Last && !removal.Counted)
}

func testDue(f *fixture) {
	require.Empty(f.t, readDue(f.t, f.x, creation(1<<20), 10))
	var want []storage.UUID
	at := func(n uint64) time.Time { return creation(100).Add(time.Duration(n/3) * time.Minute) } // three at a time
	f.addMany(30, func(n uint64) *storage.Addition {
		add := newAddition("a", n, storage.MediaMetadata{})
		if n%5 > 0 {
			add.Ref.ExpiresAt = at(60 - n)
		}
		return add
	})
	for n := uint64(30); n > 0; n-- {
		if n%5 > 0 {
			want = append(want, uuidOf(n))
		}
	}
	all := readDue(f.t, f.x, at(200), 100)
	slices.SortFunc(want, func(a, b storage.UUID) int { return bytes.Compare(a[:], b[:]) })
	require.ElementsMatch(f.t, want, uuids(all))
	for _, limit := range []int{1, 2, 3, 23, 24, 25} {
		require.Equal(f.t, all, readDue(f.t, f.x, at(200), limit), "limit %d", limit)
	}
	some := readDue(f.t, f.x, at(45), 4)
	require.Equal(f.t, all[:len(some)], some)
	require.False(f.t, all[len(some)].Ref.ExpiresAt.Before(at(45)))

	id := storage.ID{Hash: storage.ID{}.Hash, UUID: all[0].Ref.UUID}
	digest := digestOf("a")
	copy(id.Hash[:], digest[:])
	f.mustRevise(id, expireAt(at(99)))
	later := readDue(f.t, f.x, at(200), 5)
	require.Equal(f.t, uuids(all[1:]), uuids(later[:len(later)-1]))
	require.Equal(f.t, id.UUID, later[len(later)-1].Ref.UUID)
	f.mustRevise(id, expireAt(time.Time{}))
	require.Equal(f.t, uuids(all[1:]), uuids(readDue(f.t, f.x, at(200), 5)))
	f.mustRevise(id, expireAt(time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC)))
	require.Equal(f.t, uuids(all), uuids(readDue(f.t, f.x, at(200), 5)))
	f.mustRemove(id)
	f.reopen()
	require.Equal(f.t, uuids(all[1:]), uuids(readDue(f.t, f.x, at(200), 5)))
}

func testEnd(f *fixture) {
	never := f.mustAdd("a", storage.MediaMetadata{})
	add := f.next("a", storage.MediaMetadata{SessionID: "s"})
	at := creation(50)
	add.Ref.ExpiresAt = at
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	before := f.snapshot()
	for id, due := range map[storage.ID]time.Time{never: at.Add(time.Hour), idOf(add): at.Add(-time.Microsecond), {UUID: uuidOf(99)}: at} {
		removal, err := f.x.End(f.ctx, id, due)
		require.NoError(f.t, err)
		require.Zero(f.t, removal)
		require.Equal(f.t, before, f.snapshot())
	}
	removal, err := f.x.End(f.ctx, idOf(add), at)
	require.NoError(f.t, err)
	require.True(f.t, removal.Found && !removal.Last)
	requireRef(f.t, add.Ref, removal.Ref)
	f.requireGone(idOf(add))
	removal, err = f.x.End(f.ctx, never, time.Time{})
	require.NoError(f.t, err)
	require.True(f.t, removal.Last)
}

// testMove gives a blob a path that is named after none of its references: all of
// them are found by its digest, as before.
func testMove(f *fixture) {
	first := f.next("a", storage.MediaMetadata{SessionID: "s"})
	_, err := f.x.Add(f.ctx, first)
	require.NoError(f.t, err)
	ids := []storage.ID{idOf(first), f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("a", storage.MediaMetadata{})}
	f.mustRemove(ids[1])
	require.NoError(f.t, f.x.Settle(f.ctx, f.debt()))
	row := f.mustBlob(keyOf("a"))
	require.Equal(f.t, int64(1), row.Ended)
	name := uuidOf(500)
	path := "other/" + row.NameHash() + "-" + name.String() + ".png"
	moved, err := f.x.Move(f.ctx, keyOf("a"), path, storage.OrganizationByConversation)
	require.NoError(f.t, err)
	want := row
	want.Path, want.Organization, want.Ended = path, storage.OrganizationByConversation, 0
	require.Equal(f.t, want, moved)
	f.reopen()
	require.Equal(f.t, want, f.mustBlob(keyOf("a")))
	owed, _ := storage.WholeMirror(&want)
	require.Equal(f.t, name, owed.UUID)
	requireDebt(f.t, storage.Debt{
		Mirrors: []storage.Mirror{owed}, Unlinks: []storage.Unlink{{Path: row.Path}},
	}, f.debt())
	require.Equal(f.t, uuidsOf([]storage.ID{ids[0], ids[2]}), uuids(f.refs(storage.RefFilter{Digest: digestOf("a")}, 1)))
	require.NoError(f.t, f.x.Settle(f.ctx, f.debt()))
	requireDebt(f.t, storage.Debt{}, f.debt())
	for _, id := range []storage.ID{ids[0], ids[2]} {
		f.mustRemove(id)
	}
	require.Empty(f.t, f.refs(storage.RefFilter{Digest: digestOf("a")}, 5))
	_, err = f.x.Move(f.ctx, keyOf("a"), path, storage.OrganizationFlat)
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	_, err = f.x.Move(f.ctx, f.next("b", storage.MediaMetadata{}).Blob.Key, path, storage.OrganizationFlat)
	require.ErrorIs(f.t, err, storage.ErrNotFound)
}

// testMoveNamed gives a blob the name of another of its references, and then back
// that of the first in another directory.
func testMoveNamed(f *fixture) {
	ids := []storage.ID{f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("a", storage.MediaMetadata{})}
	for i, id := range []storage.ID{ids[1], ids[0], ids[0]} {
		_, err := f.x.Move(f.ctx, keyOf("a"), fmt.Sprintf("%d/%s.png", i, id), storage.OrganizationBySession)
		require.NoError(f.t, err)
		require.Equal(f.t, uuidsOf(ids), uuids(f.refs(storage.RefFilter{Digest: digestOf("a")}, 2)))
		f.verify()
	}
	require.Len(f.t, f.debt().Mirrors, 3+3, "each move owes a sidecar of its own")
	f.mustRemove(ids[0])
	require.Equal(f.t, uuidsOf(ids[1:]), uuids(f.refs(storage.RefFilter{Digest: digestOf("a")}, 2)))
}

// testMoveNowhere gives a blob the path that it has: its file must not come to be owed
// as one to be removed.
func testMoveNowhere(f *fixture) {
	f.mustAdd("a", storage.MediaMetadata{})
	f.mustRemove(f.mustAdd("a", storage.MediaMetadata{}))
	row := f.mustBlob(keyOf("a"))
	before := f.snapshot()
	_, err := f.x.Move(f.ctx, row.Key, row.Path, storage.OrganizationByConversation)
	require.ErrorIs(f.t, err, storage.ErrConflict)
	require.Equal(f.t, before, f.snapshot())
	f.reopen()
	require.Equal(f.t, before, f.snapshot())
	require.NotContains(f.t, f.debt().Unlinks, storage.Unlink{Path: row.Path})
}

var modelTimes = rapid.Custom(func(r *rapid.T) time.Time {
	if n := rapid.IntRange(-2, 6).Draw(r, "hour"); n > 0 {
		return creation(0).Add(time.Duration(n) * time.Hour)
	}
	return time.Time{}
})

// revised takes in a change of a reference.
func (m *model) revised(ref storage.RefRow) {
	ref.Revision++
	m.refs[ref.UUID] = ref
	m.mirrors[storage.Mirror{UUID: ref.UUID, Revision: ref.Revision, Blob: ref.Blob}] = true
}

func (m *model) revise(r *rapid.T) {
	ids := m.ids()
	if len(ids) == 0 {
		r.Skip("nothing to revise")
	}
	id := rapid.SampledFrom(ids).Draw(r, "reference")
	ref := m.refs[id.UUID]
	ref.ExpiresAt = modelTimes.Draw(r, "expires")
	ref.Metadata.Policy = rapid.SampledFrom([]string{"", "retain", "36h"}).Draw(r, "policy")
	ref.Count = rapid.Int64Range(0, 3).Draw(r, "count")
	want := ref
	m.revised(ref)
	pair, err := m.x.Revise(context.Background(), id, func(row *storage.RefRow) bool {
		row.ExpiresAt, row.Metadata.Policy, row.Count = want.ExpiresAt, want.Metadata.Policy, want.Count
		return true
	})
	require.NoError(r, err)
	requireRef(r, m.refs[id.UUID], pair.Ref)
	m.written()
}

func (m *model) end(r *rapid.T) {
	ids := m.ids()
	if len(ids) == 0 {
		r.Skip("nothing to end")
	}
	id := rapid.SampledFrom(ids).Draw(r, "reference")
	due, expires := modelTimes.Draw(r, "due"), m.refs[id.UUID].ExpiresAt
	if due.IsZero() || !expires.IsZero() && !expires.After(due) {
		m.ended(r, id, func() (storage.Removal, error) { return m.x.End(context.Background(), id, due) })
		return
	}
	removal, err := m.x.End(context.Background(), id, due)
	require.NoError(r, err)
	require.Zero(r, removal)
}

func (m *model) move(r *rapid.T) {
	ids := m.ids()
	if len(ids) == 0 {
		r.Skip("nothing to move")
	}
	row := m.blobs[m.refs[rapid.SampledFrom(ids).Draw(r, "reference").UUID].Blob]
	m.made++
	name := uuidOf(m.made)
	m.unlinks[storage.Unlink{Path: row.Path}] = true
	row.Path, row.Ended = "moved/"+row.NameHash()+"-"+name.String()+".png", 0
	owed, _ := storage.WholeMirror(&row)
	m.mirrors[owed] = true
	blob, err := m.x.Move(context.Background(), row.Key, row.Path, row.Organization)
	require.NoError(r, err)
	requireBlob(r, row, blob)
	m.blobs[row.Key] = row
	m.written()
}

func (m *model) checkDue(r *rapid.T) {
	before := modelTimes.Draw(r, "due before")
	want := []storage.Place{}
	for _, ref := range m.refs {
		if !ref.ExpiresAt.IsZero() && ref.ExpiresAt.Before(before) {
			want = append(want, placeOf(&ref))
		}
	}
	slices.SortFunc(want, comparePlace)
	got := []storage.Place{}
	for _, pair := range readDue(r, m.x, before, rapid.IntRange(1, 5).Draw(r, "due")) {
		got = append(got, placeOf(&pair.Ref))
	}
	require.Equal(r, want, got)
}

func (m *model) checkUsage(r *rapid.T) {
	id := modelIDs.Filter(func(id string) bool { return id != "" }).Draw(r, "usage of")
	for _, kind := range []storage.IDKind{storage.SessionIDs, storage.UserIDs} {
		var want storage.Usage
		for _, ref := range m.refs {
			if kind.Of(&ref.Metadata) == id {
				want.Refs++
				want.Bytes += m.blobs[ref.Blob].Size
			}
		}
		got, err := m.x.Usage(context.Background(), kind, id)
		require.NoError(r, err)
		require.Equal(r, want, got)
	}
}
