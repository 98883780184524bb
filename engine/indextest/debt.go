package indextest

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// Every addition and every removal of one of several owes a line to a sidecar,
// every removal of the last owes the files' removal.
func testDebt(f *fixture) {
	one, two := f.next("a", storage.MediaMetadata{}), f.next("a", storage.MediaMetadata{})
	for _, add := range []*storage.Addition{one, two} {
		_, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
	}
	key := one.Blob.Key
	want := storage.Debt{Mirrors: []storage.Mirror{{UUID: one.Ref.UUID, Blob: key}, {UUID: two.Ref.UUID, Blob: key}}}
	requireDebt(f.t, want, f.debt())

	f.mustRemove(idOf(one))
	want.Mirrors = append(want.Mirrors, storage.Mirror{UUID: one.Ref.UUID, Deleted: true, Blob: key})
	requireDebt(f.t, want, f.debt())
	f.mustRemove(idOf(one))
	requireDebt(f.t, want, f.debt())

	f.mustRemove(idOf(two))
	want.Unlinks = []storage.Unlink{{Path: one.Blob.Path}}
	requireDebt(f.t, want, f.debt())

	solo := f.next("b", storage.MediaMetadata{})
	solo.Ref.Blob = storage.UUIDKey(solo.Ref.UUID)
	solo.Blob.Key = solo.Ref.Blob
	_, err := f.x.Add(f.ctx, solo)
	require.NoError(f.t, err)
	want.Mirrors = append(want.Mirrors, storage.Mirror{UUID: solo.Ref.UUID, Blob: solo.Blob.Key})
	f.reopen()
	requireDebt(f.t, want, f.debt())
}

func testSettle(f *fixture) {
	var ids []storage.ID
	for _, name := range []string{"a", "a", "a", "b", "c"} {
		ids = append(ids, f.mustAdd(name, storage.MediaMetadata{}))
	}
	f.mustRemove(ids[0])
	f.mustRemove(ids[3])
	f.mustRemove(ids[4])
	all := f.debt()
	require.Len(f.t, all.Mirrors, 6)
	require.Len(f.t, all.Unlinks, 2)
	rows := f.snapshot()

	require.NoError(f.t, f.x.Settle(f.ctx, storage.Debt{}))
	requireDebt(f.t, all, f.debt())
	unknown := storage.Debt{
		Mirrors: []storage.Mirror{{UUID: uuidOf(1 << 30), Blob: keyOf("a")}, {UUID: ids[1].UUID, Deleted: true, Blob: keyOf("a")}},
		Unlinks: []storage.Unlink{{Path: "not/there.png"}},
	}
	require.NoError(f.t, f.x.Settle(f.ctx, unknown))
	requireDebt(f.t, all, f.debt())

	part := storage.Debt{Mirrors: all.Mirrors[1:3], Unlinks: all.Unlinks[1:]}
	left := storage.Debt{
		Mirrors: slices.Concat(all.Mirrors[:1], all.Mirrors[3:]), Unlinks: all.Unlinks[:1],
	}
	require.NoError(f.t, f.x.Settle(f.ctx, part))
	requireDebt(f.t, left, f.debt())
	require.NoError(f.t, f.x.Settle(f.ctx, part), "a second time")
	f.reopen()
	requireDebt(f.t, left, f.debt())

	require.NoError(f.t, f.x.Settle(f.ctx, all))
	requireDebt(f.t, storage.Debt{}, f.debt())
	f.reopen()
	requireDebt(f.t, storage.Debt{}, f.debt())
	after := f.snapshot()
	require.Equal(f.t, rows.refs, after.refs)
	require.Equal(f.t, rows.blobs, after.blobs)
	require.Equal(f.t, rows.counters, after.counters)
}

func testSettleMuch(f *fixture) {
	const count = 2500
	ids := f.addMany(count, func(n uint64) *storage.Addition {
		return newAddition(fmt.Sprint("blob ", n), n, storage.MediaMetadata{})
	})
	for _, id := range ids[:10] {
		f.mustRemove(id)
	}
	debt := f.debt()
	require.Len(f.t, debt.Mirrors, count)
	require.Len(f.t, debt.Unlinks, 10)
	late := f.mustAdd("late", storage.MediaMetadata{})
	require.NoError(f.t, f.x.Settle(f.ctx, debt))
	requireDebt(f.t, storage.Debt{Mirrors: []storage.Mirror{{UUID: late.UUID, Blob: keyOf("late")}}}, f.debt())
}

// What is owed beforehand is debt like any other, and a path that a blob moves to
// is none any more.
func testOwe(f *fixture) {
	id := f.mustAdd("a", storage.MediaMetadata{})
	require.NoError(f.t, f.x.Settle(f.ctx, f.debt()))
	row := f.mustBlob(keyOf("a"))
	owed := storage.Debt{
		Mirrors: []storage.Mirror{{UUID: id.UUID, Revision: 7, Blob: keyOf("a")}},
		Unlinks: []storage.Unlink{{Path: "b/" + id.String() + ".png"}, {Path: "c/" + id.String() + ".png"}},
	}
	require.NoError(f.t, f.x.Owe(f.ctx, owed))
	require.NoError(f.t, f.x.Owe(f.ctx, owed), "a second time")
	f.reopen()
	requireDebt(f.t, owed, f.debt())
	moved, err := f.x.Move(f.ctx, keyOf("a"), owed.Unlinks[0].Path, storage.OrganizationBySession)
	require.NoError(f.t, err)
	whole, _ := storage.WholeMirror(&moved)
	requireDebt(f.t, storage.Debt{
		Mirrors: append(owed.Mirrors, whole), Unlinks: []storage.Unlink{owed.Unlinks[1], {Path: row.Path}},
	}, f.debt())
	require.NoError(f.t, f.x.Settle(f.ctx, f.debt()))
	requireDebt(f.t, storage.Debt{}, f.debt())
}
