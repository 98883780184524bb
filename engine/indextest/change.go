package indextest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func testEmpty(f *fixture) {
	_, err := f.x.Blob(f.ctx, keyOf("a"))
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	f.requireGone(storage.ID{UUID: uuidOf(1)})
	require.Empty(f.t, f.refs(storage.RefFilter{}, 10))
	require.Empty(f.t, f.refs(storage.RefFilter{SessionID: "s"}, 10))
	for _, filter := range []storage.RefFilter{{Newest: true}, {UserID: "u", Newest: true}, {Digest: digestOf("a")}, {Digest: digestOf("a"), Newest: true}} {
		require.Empty(f.t, f.refs(filter, 10))
	}
	for _, list := range lists {
		require.Empty(f.t, f.ids(list.kind, 10))
	}
	require.Empty(f.t, f.blobRows(10))
	require.Zero(f.t, f.counters())
	requireDebt(f.t, storage.Debt{}, f.debt())
}

func testAddNew(f *fixture) {
	add := f.next("a", storage.MediaMetadata{SessionID: "s"})
	add.Blob.Refs = 77 // is to be ignored
	blob, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)

	want := add.Blob
	want.Refs = 1
	require.Equal(f.t, want, blob)
	require.Equal(f.t, want, f.mustBlob(add.Blob.Key))
	ref, blob, err := f.x.Ref(f.ctx, idOf(add))
	require.NoError(f.t, err)
	require.Equal(f.t, want, blob)
	requireRef(f.t, add.Ref, ref)
}

// A blob keeps the row it came with: its path and MIME type are those of the
// first reference, whatever later additions say.
func testAddPresent(f *fixture) {
	first := f.next("a", storage.MediaMetadata{SessionID: "s1"})
	_, err := f.x.Add(f.ctx, first)
	require.NoError(f.t, err)
	want := first.Blob
	for i, staged := range []bool{true, false, true, false} {
		add := f.next("a", storage.MediaMetadata{SessionID: "s2"})
		add.Staged = staged
		add.Ref.MimeType, add.Blob.MimeType = "image/webp", "image/webp"
		blob, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
		want.Refs = int64(i) + 2
		require.Equal(f.t, want, blob)
		ref, blob, err := f.x.Ref(f.ctx, storage.ID{Hash: idOf(first).Hash, UUID: add.Ref.UUID})
		require.NoError(f.t, err)
		require.Equal(f.t, want, blob)
		requireRef(f.t, add.Ref, ref)
	}
	require.Equal(f.t, want, f.mustBlob(first.Blob.Key))
}

func testAddAbsent(f *fixture) {
	f.mustAdd("other", storage.MediaMetadata{SessionID: "s"})
	before := f.snapshot()
	add := f.next("a", storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r", UserID: "u"})
	add.Staged = false
	_, err := f.x.Add(f.ctx, add)
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	require.NotErrorIs(f.t, err, storage.ErrCorrupted)
	f.requireGone(idOf(add))
	_, err = f.x.Blob(f.ctx, add.Blob.Key)
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	require.Equal(f.t, before, f.snapshot())
	f.reopen()
	require.Equal(f.t, before, f.snapshot())
}

// Without dedup a blob's key is a UUID; its digest may be known or not.
func testAddUUIDBlobs(f *fixture) {
	for _, known := range []bool{true, false} {
		add := f.next("a", storage.MediaMetadata{})
		add.Ref.Blob = storage.UUIDKey(add.Ref.UUID)
		add.Blob.Key = add.Ref.Blob
		if !known {
			add.Blob.Digest = storage.Digest{}
		}
		blob, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
		want := add.Blob
		want.Refs = 1
		require.Equal(f.t, want, blob)
		f.reopen()
		require.Equal(f.t, want, f.mustBlob(add.Blob.Key))
	}
	require.Equal(f.t, int64(2), f.counters().Blobs)
}

func testRemoveOneOfSeveral(f *fixture) {
	m := storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r", UserID: "u"}
	ids := []storage.ID{f.mustAdd("a", m), f.mustAdd("a", m), f.mustAdd("a", m)}
	row := f.mustBlob(keyOf("a"))
	for left := int64(2); left > 0; left-- {
		row.Refs = left
		row.Ended = int64(len(ids)) - left
		ref, _, err := f.x.Ref(f.ctx, ids[left])
		require.NoError(f.t, err)
		require.Equal(f.t, storage.Removal{Found: true, Ref: ref, Blob: row}, f.mustRemove(ids[left]))
		f.requireGone(ids[left])
		require.Equal(f.t, row, f.mustBlob(keyOf("a")))
		require.Equal(f.t, uuidsOf(ids[:left]), uuids(f.refs(storage.RefFilter{SessionID: "s"}, 10)))
	}
	f.reopen()
	require.Zero(f.t, f.mustRemove(ids[1]), "removed before the restart")
	_, blob, err := f.x.Ref(f.ctx, ids[0])
	require.NoError(f.t, err)
	require.Equal(f.t, row, blob)
}

func testRemoveLast(f *fixture) {
	id := f.mustAdd("a", storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r", UserID: "u"})
	ref, row, err := f.x.Ref(f.ctx, id)
	require.NoError(f.t, err)
	row.Refs = 0
	require.Equal(f.t, storage.Removal{Found: true, Last: true, Ref: ref, Blob: row}, f.mustRemove(id))
	f.requireGone(id)
	_, err = f.x.Blob(f.ctx, keyOf("a"))
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	for _, filter := range []storage.RefFilter{{}, {SessionID: "s"}, {ConversationID: "c"}, {RunID: "r"}, {UserID: "u"}} {
		require.Empty(f.t, f.refs(filter, 10), "%+v", filter)
	}
	require.Zero(f.t, f.counters())
}

func testRemoveUnknown(f *fixture) {
	one, two := f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("a", storage.MediaMetadata{})
	gone := f.mustAdd("b", storage.MediaMetadata{})
	require.True(f.t, f.mustRemove(gone).Found)
	otherHash := one
	otherHash.Hash[2] ^= 1
	before := f.snapshot()
	for what, id := range map[string]storage.ID{
		"never made":       {Hash: one.Hash, UUID: uuidOf(1 << 40)},
		"the zero ID":      {},
		"the largest UUID": {UUID: storage.UUID{0: 0xff, 15: 0xff}},
		"another hash":     otherHash,
		"removed twice":    gone,
	} {
		require.Zero(f.t, f.mustRemove(id), what)
		f.requireGone(id)
		require.Equal(f.t, before, f.snapshot(), what)
	}
	require.Equal(f.t, []storage.UUID{one.UUID, two.UUID}, uuids(f.refs(storage.RefFilter{}, 10)))
}

// The new blob has the row of the new addition, and the debt of the old one
// stays.
func testAddAfterLast(f *fixture) {
	first := f.next("a", storage.MediaMetadata{})
	_, err := f.x.Add(f.ctx, first)
	require.NoError(f.t, err)
	f.mustRemove(idOf(first))
	again := f.next("a", storage.MediaMetadata{})
	blob, err := f.x.Add(f.ctx, again)
	require.NoError(f.t, err)
	want := again.Blob
	want.Refs = 1
	require.Equal(f.t, want, blob)
	require.NotEqual(f.t, first.Blob.Path, blob.Path)
	require.Equal(f.t, []storage.Unlink{{Path: first.Blob.Path}}, f.debt().Unlinks)
	f.requireGone(idOf(first))
}

func testCounters(f *fixture) {
	a, b := newAddition("a", 1, storage.MediaMetadata{}).Blob.Size, newAddition("b", 1, storage.MediaMetadata{}).Blob.Size
	a1 := f.mustAdd("a", storage.MediaMetadata{})
	require.Equal(f.t, storage.Counters{Refs: 1, Blobs: 1, LogicalBytes: a, PhysicalBytes: a, NoConversation: 1, NoSession: 1, NoRun: 1}, f.counters())
	a2 := f.mustAdd("a", storage.MediaMetadata{SessionID: "s", UserID: "u"})
	require.Equal(f.t, storage.Counters{Refs: 2, Blobs: 1, LogicalBytes: 2 * a, PhysicalBytes: a, NoConversation: 2, NoSession: 1, NoRun: 2}, f.counters())
	b1 := f.mustAdd("b", storage.MediaMetadata{ConversationID: "c", RunID: "r"})
	require.Equal(f.t, storage.Counters{Refs: 3, Blobs: 2, LogicalBytes: 2*a + b, PhysicalBytes: a + b, NoConversation: 2, NoSession: 2, NoRun: 2}, f.counters())
	f.reopen()
	f.mustRemove(a1)
	require.Equal(f.t, storage.Counters{Refs: 2, Blobs: 2, LogicalBytes: a + b, PhysicalBytes: a + b, NoConversation: 1, NoSession: 1, NoRun: 1}, f.counters())
	f.mustRemove(a2)
	require.Equal(f.t, storage.Counters{Refs: 1, Blobs: 1, LogicalBytes: b, PhysicalBytes: b, NoSession: 1}, f.counters())
	f.mustRemove(b1)
	require.Zero(f.t, f.counters())

	all := storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r"}
	empty, large := f.next("empty", all), f.next("large", all)
	empty.Blob.Size, large.Blob.Size = 0, 1<<50
	for _, add := range []*storage.Addition{empty, large} {
		_, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
	}
	require.Equal(f.t, storage.Counters{Refs: 2, Blobs: 2, LogicalBytes: 1 << 50, PhysicalBytes: 1 << 50}, f.counters())
}

// Everything that returned is there after a reopening, again and again.
func testDurability(f *fixture) {
	m := storage.MediaMetadata{SessionID: "s", Labels: map[string]string{"k": "v"}}
	var ids []storage.ID
	for _, name := range []string{"a", "b", "a", "c", "a"} {
		ids = append(ids, f.mustAdd(name, m))
		before := f.snapshot()
		f.reopen()
		require.Equal(f.t, before, f.snapshot())
	}
	for _, id := range ids {
		f.mustRemove(id)
		before := f.snapshot()
		f.reopen()
		require.Equal(f.t, before, f.snapshot())
	}
}

func testSize(f *fixture) {
	before, err := f.x.Size(f.ctx)
	require.NoError(f.t, err)
	require.GreaterOrEqual(f.t, before, int64(0))
	labels := map[string]string{"prompt": text(4096)}
	f.addMany(64, func(n uint64) *storage.Addition {
		return newAddition("a", n, storage.MediaMetadata{Labels: labels})
	})
	after, err := f.x.Size(f.ctx)
	require.NoError(f.t, err)
	require.Greater(f.t, after, before)
	require.Greater(f.t, after, int64(64))
}

func testCancelled(f *fixture) {
	id := f.mustAdd("a", storage.MediaMetadata{SessionID: "s"})
	f.mustAdd("b", storage.MediaMetadata{SessionID: "s"})
	before, debt := f.snapshot(), f.debt()
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	calls := map[string]func() error{
		"Blob":         func() error { _, err := f.x.Blob(ctx, keyOf("a")); return err },
		"Ref":          func() error { _, _, err := f.x.Ref(ctx, id); return err },
		"IDs":          func() error { _, err := f.x.IDs(ctx, storage.SessionIDs, "", 10); return err },
		"Refs":         func() error { _, _, _, err := f.x.Refs(ctx, storage.RefFilter{}, storage.UUID{}, 10); return err },
		"Blobs":        func() error { _, err := f.x.Blobs(ctx, "", 10); return err },
		"Counters":     func() error { _, err := f.x.Counters(ctx); return err },
		"Size":         func() error { _, err := f.x.Size(ctx); return err },
		"Add new":      func() error { _, err := f.x.Add(ctx, f.next("c", storage.MediaMetadata{})); return err },
		"Add to there": func() error { _, err := f.x.Add(ctx, f.next("a", storage.MediaMetadata{})); return err },
		"Remove":       func() error { _, err := f.x.Remove(ctx, id); return err },
		"End":          func() error { _, err := f.x.End(ctx, id, time.Time{}); return err },
		"Revise":       func() error { _, err := f.x.Revise(ctx, id, expireAt(creation(1))); return err },
		"Move":         func() error { _, err := f.x.Move(ctx, keyOf("a"), "x", storage.OrganizationFlat); return err },
		"Due":          func() error { _, _, _, err := f.x.Due(ctx, creation(1), storage.Place{}, 10); return err },
		"Usage":        func() error { _, err := f.x.Usage(ctx, storage.SessionIDs, "s"); return err },
		"Debt":         func() error { _, err := f.x.Debt(ctx); return err },
		"Owe":          func() error { return f.x.Owe(ctx, debt) },
		"Settle":       func() error { return f.x.Settle(ctx, debt) },
		"Verify":       func() error { _, err := f.x.Verify(ctx); return err },
	}
	for name, call := range calls {
		require.ErrorIs(f.t, call(), context.Canceled, name)
		require.Equal(f.t, before, f.snapshot(), name)
	}
	f.reopen()
	require.Equal(f.t, before, f.snapshot())
}
