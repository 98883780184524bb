package indextest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// model is an index in plain maps, beside the real one.
type model struct {
	t    *testing.T
	open Open
	dir  string
	x    engine.Index

	made    uint64
	refs    map[storage.UUID]storage.RefRow
	dead    []storage.ID
	blobs   map[storage.BlobKey]storage.BlobRow
	mirrors map[storage.Mirror]bool
	unlinks map[storage.Unlink]bool
	touched map[storage.BlobKey][]time.Time // since the last change; any may be in the row
}

// testModel makes random changes to an index and to a model of it, reopens it
// at random, and compares the two after every step.
func testModel(t *testing.T, open Open) {
	base := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(base, "model")
		require.NoError(r, err)
		m := &model{
			t: t, open: open, dir: dir, x: open(t, dir),
			refs: map[storage.UUID]storage.RefRow{}, blobs: map[storage.BlobKey]storage.BlobRow{},
			mirrors: map[storage.Mirror]bool{}, unlinks: map[storage.Unlink]bool{}, touched: map[storage.BlobKey][]time.Time{},
		}
		defer func() {
			require.NoError(r, m.x.Close())
			require.NoError(r, os.RemoveAll(dir))
		}()
		r.Repeat(map[string]func(*rapid.T){
			"add": m.add, "remove": m.remove, "remove nothing": m.removeNothing,
			"touch": m.touch, "settle": m.settle, "reopen": m.reopen, "revise": m.revise, "end": m.end, "move": m.move, "": m.check,
		})
		findings, err := m.x.Verify(context.Background())
		require.NoError(r, err)
		require.Empty(r, findings)
	})
}

var (
	modelNames = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	modelIDs   = rapid.SampledFrom([]string{"", "", "x", "xy", "x\x00", "x\x00y", "\x00", "会話"})
)

// ids are the live references' IDs.
func (m *model) ids() []storage.ID {
	var ids []storage.ID
	for u, ref := range m.refs {
		blob := m.blobs[ref.Blob]
		ids = append(ids, storage.ID{Hash: idOf(&storage.Addition{Blob: blob}).Hash, UUID: u})
	}
	slices.SortFunc(ids, func(a, b storage.ID) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
	return ids
}

func (m *model) add(r *rapid.T) {
	m.made++
	add := newAddition(modelNames.Draw(r, "blob"), m.made, storage.MediaMetadata{
		SessionID: modelIDs.Draw(r, "session"), ConversationID: modelIDs.Draw(r, "conversation"),
		RunID: modelIDs.Draw(r, "run"), UserID: modelIDs.Draw(r, "user"),
		MessageIndex: rapid.Int().Draw(r, "message"),
		Labels:       rapid.MapOfN(rapid.StringN(1, 8, -1), rapid.String(), 0, 3).Draw(r, "labels"),
	})
	add.Ref.Count = rapid.Int64Range(0, 3).Draw(r, "count")
	add.Ref.ExpiresAt = modelTimes.Draw(r, "expires")
	add.Staged = rapid.Bool().Draw(r, "staged")
	if rapid.Bool().Draw(r, "own blob") {
		add.Ref.Blob = storage.UUIDKey(add.Ref.UUID)
		add.Blob.Key = add.Ref.Blob
	}
	blob, err := m.x.Add(context.Background(), add)
	row, there := m.blobs[add.Ref.Blob]
	if !there && !add.Staged {
		require.ErrorIs(r, err, storage.ErrNotFound)
		return
	}
	require.NoError(r, err)
	if !there {
		row = add.Blob
	}
	row.Refs++
	requireBlob(r, row, blob)
	m.blobs[row.Key] = row
	m.refs[add.Ref.UUID] = add.Ref
	m.mirrors[storage.Mirror{UUID: add.Ref.UUID, Revision: add.Ref.Revision, Blob: row.Key}] = true
	m.written()
}

func (m *model) remove(r *rapid.T) {
	ids := m.ids()
	if len(ids) == 0 {
		r.Skip("nothing to remove")
	}
	id := rapid.SampledFrom(ids).Draw(r, "reference")
	row := m.blobs[m.refs[id.UUID].Blob]
	ref := m.refs[id.UUID]
	if ref.Count > 1 {
		ref.Count--
		m.revised(ref)
		removal, err := m.x.Remove(context.Background(), id)
		require.NoError(r, err)
		require.True(r, removal.Found && removal.Counted && !removal.Last, "%+v", removal)
		requireBlob(r, row, removal.Blob)
		m.written()
		return
	}
	m.ended(r, id, func() (storage.Removal, error) { return m.x.Remove(context.Background(), id) })
}

// ended ends a reference by a call that is to do it.
func (m *model) ended(r *rapid.T, id storage.ID, call func() (storage.Removal, error)) {
	ref := m.refs[id.UUID]
	row := m.blobs[ref.Blob]
	row.Refs--
	removal, err := call()
	require.NoError(r, err)
	require.True(r, removal.Found)
	require.False(r, removal.Counted)
	require.Equal(r, row.Refs == 0, removal.Last)
	requireRef(r, ref, removal.Ref)
	if !removal.Last {
		row.Ended++
	}
	requireBlob(r, row, removal.Blob)
	delete(m.refs, id.UUID)
	m.dead = append(m.dead, id)
	if removal.Last {
		delete(m.blobs, row.Key)
		delete(m.touched, row.Key)
		m.unlinks[storage.Unlink{Path: row.Path}] = true
	} else {
		m.blobs[row.Key] = row
		m.mirrors[storage.Mirror{UUID: id.UUID, Deleted: true, Blob: row.Key}] = true
	}
	m.written()
}

func (m *model) removeNothing(r *rapid.T) {
	id := storage.ID{UUID: uuidOf(1 << 40)}
	switch ids := m.ids(); {
	case len(m.dead) > 0 && rapid.Bool().Draw(r, "dead"):
		id = rapid.SampledFrom(m.dead).Draw(r, "reference")
	case len(ids) > 0:
		id = rapid.SampledFrom(ids).Draw(r, "reference")
		id.Hash[rapid.IntRange(0, 2).Draw(r, "byte")] ^= 0x10
	}
	removal, err := m.x.Remove(context.Background(), id)
	require.NoError(r, err)
	require.Zero(r, removal)
}

func (m *model) touch(r *rapid.T) {
	ids := m.ids()
	if len(ids) == 0 {
		r.Skip("nothing to touch")
	}
	key := m.refs[rapid.SampledFrom(ids).Draw(r, "reference").UUID].Blob
	at := time.UnixMicro(rapid.Int64Range(0, 1<<50).Draw(r, "time")).UTC()
	m.x.Touch(key, at)
	m.touched[key] = append(m.touched[key], at)
}

// written notes that a change went through, which takes the touches along.
func (m *model) written() {
	for key, times := range m.touched {
		if row, there := m.blobs[key]; there {
			row.AccessedAt = times[len(times)-1]
			m.blobs[key] = row
		}
	}
	clear(m.touched)
}

func (m *model) settle(r *rapid.T) {
	var paid storage.Debt
	for mirror := range m.mirrors {
		paid.Mirrors = append(paid.Mirrors, mirror)
	}
	for unlink := range m.unlinks {
		paid.Unlinks = append(paid.Unlinks, unlink)
	}
	sortDebt(&paid)
	paid.Mirrors = paid.Mirrors[:rapid.IntRange(0, len(paid.Mirrors)).Draw(r, "mirrors")]
	paid.Unlinks = paid.Unlinks[:rapid.IntRange(0, len(paid.Unlinks)).Draw(r, "unlinks")]
	require.NoError(r, m.x.Settle(context.Background(), paid))
	for _, mirror := range paid.Mirrors {
		delete(m.mirrors, mirror)
	}
	for _, unlink := range paid.Unlinks {
		delete(m.unlinks, unlink)
	}
	if len(paid.Mirrors)+len(paid.Unlinks) > 0 {
		m.written()
	}
}

func (m *model) reopen(r *rapid.T) {
	require.NoError(r, m.x.Close())
	m.x = m.open(m.t, m.dir)
	m.written()
}

// check compares everything that the index tells with the model.
func (m *model) check(r *rapid.T) {
	ctx := context.Background()
	var want storage.Counters
	for _, row := range m.blobs {
		want.Blobs++
		want.PhysicalBytes += row.Size
		got, err := m.x.Blob(ctx, row.Key)
		require.NoError(r, err)
		m.requireBlob(r, row, got)
	}
	for _, ref := range m.refs {
		want.CountRef(&ref.Metadata, m.blobs[ref.Blob].Size, 1)
	}
	counters, err := m.x.Counters(ctx)
	require.NoError(r, err)
	require.Equal(r, want, counters)
	require.Len(r, readBlobs(r, m.x, 3), len(m.blobs))
	for _, id := range m.ids() {
		ref, blob, err := m.x.Ref(ctx, id)
		require.NoError(r, err)
		requireRef(r, m.refs[id.UUID], ref)
		m.requireBlob(r, m.blobs[ref.Blob], blob)
	}
	for _, id := range m.dead {
		_, _, err := m.x.Ref(ctx, id)
		require.ErrorIs(r, err, storage.ErrNotFound)
	}
	debt, err := m.x.Debt(ctx)
	require.NoError(r, err)
	requireDebt(r, storage.Debt{Mirrors: slices.Collect(maps.Keys(m.mirrors)), Unlinks: slices.Collect(maps.Keys(m.unlinks))}, debt)
	m.checkList(r)
	m.checkDue(r)
	m.checkUsage(r)
}

// checkList compares one listing, of a filter at random.
func (m *model) checkList(r *rapid.T) {
	filter := storage.RefFilter{
		SessionID: modelIDs.Draw(r, "of session"), UserID: modelIDs.Draw(r, "of user"), Newest: rapid.Bool().Draw(r, "newest first"),
	}
	if rapid.Bool().Draw(r, "of a digest") {
		filter.Digest = digestOf(modelNames.Draw(r, "of blob"))
	}
	want := []storage.UUID{}
	ids := map[string]bool{}
	for _, id := range m.ids() {
		ref := m.refs[id.UUID]
		if filter.Matches(&storage.RefPair{Ref: ref, Blob: m.blobs[ref.Blob]}) {
			want = append(want, id.UUID)
		}
		if ref.Metadata.RunID != "" {
			ids[ref.Metadata.RunID] = true
		}
	}
	if filter.Newest {
		slices.Reverse(want)
	}
	require.Equal(r, slices.Sorted(maps.Keys(ids)), readIDs(r, m.x, storage.RunIDs, rapid.IntRange(1, 5).Draw(r, "IDs")))
	got := uuids(readRefs(r, m.x, filter, rapid.IntRange(1, 5).Draw(r, "limit")))
	require.Equal(r, want, got, fmt.Sprintf("%+v", filter))
}

// requireBlob compares a row; a touch that still waits may be in it or not.
func (m *model) requireBlob(r *rapid.T, want, got storage.BlobRow) {
	if slices.Contains(m.touched[want.Key], got.AccessedAt) {
		want.AccessedAt = got.AccessedAt
	}
	require.Equal(r, want, got)
}

// requireBlob compares a row that a change returned, which may or may not show
// the touches that the change took along.
func requireBlob(r *rapid.T, want, got storage.BlobRow) {
	got.AccessedAt = want.AccessedAt
	require.Equal(r, want, got)
}
