package indextest

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// state is all that an index tells about itself.
type state struct {
	refs     []storage.RefPair
	blobs    []storage.BlobRow
	counters storage.Counters
	mirrors  []storage.Mirror
	unlinks  []storage.Unlink
}

func (f *fixture) snapshot() state {
	f.t.Helper()
	debt := f.debt()
	sortDebt(&debt)
	return state{
		refs: f.refs(storage.RefFilter{}, 100), blobs: f.blobRows(100), counters: f.counters(),
		mirrors: debt.Mirrors, unlinks: debt.Unlinks,
	}
}

func sortDebt(d *storage.Debt) {
	slices.SortFunc(d.Mirrors, func(a, b storage.Mirror) int {
		return bytes.Compare(a.Key(), b.Key())
	})
	slices.SortFunc(d.Unlinks, func(a, b storage.Unlink) int { return strings.Compare(a.Path, b.Path) })
}

// requireRef compares two reference rows. Labels that are empty may come back
// as nil.
func requireRef(t require.TestingT, want, got storage.RefRow) {
	if len(want.Metadata.Labels) == 0 && len(got.Metadata.Labels) == 0 {
		want.Metadata.Labels, got.Metadata.Labels = nil, nil
	}
	require.Equal(t, want, got)
}

// text is a string of that many bytes.
func text(size int) string { return strings.Repeat("x", size) }

func testFields(f *fixture) {
	most := map[string]string{}
	for len(most) < storage.MaxLabels {
		most[strings.Repeat("k", len(most)+1)] = text(storage.MaxLabelsLength/storage.MaxLabels - 64)
	}
	metadata := map[string]storage.MediaMetadata{
		"nothing set": {},
		"everything": {
			ConversationID: "conv-123", SessionID: "session-xyz", RunID: "run-7", UserID: "user@example.com",
			MessageIndex: 12, ContentIndex: 3, Labels: map[string]string{"file": "a b.png", "model": "模型", "empty": ""},
		},
		"no labels, but a map": {Labels: map[string]string{}},
		"negative indexes":     {MessageIndex: -1, ContentIndex: math.MinInt},
		"large indexes":        {MessageIndex: math.MaxInt, ContentIndex: math.MaxInt32},
		"NUL and separators":   {ConversationID: "\x00", SessionID: "../..", RunID: "a/b\\c", UserID: "\x00\x00", Labels: map[string]string{"\x00": "\x00", "'\"": "--"}},
		"policies":             {Policy: "retain-30days", SessionID: "s"},
		"a policy of its own":  {Policy: "48h", UserID: "u"},
		"at the bounds": {
			ConversationID: text(storage.MaxIDLength), SessionID: text(storage.MaxIDLength), RunID: text(storage.MaxIDLength),
			UserID: text(storage.MaxIDLength), Labels: most,
		},
	}
	blobs := map[string]func(*storage.Addition){
		"as it is":     func(*storage.Addition) {},
		"no MIME type": func(a *storage.Addition) { a.Ref.MimeType, a.Blob.MimeType, a.Ref.Type = "", "", "" },
		"long types": func(a *storage.Addition) {
			a.Ref.MimeType, a.Blob.MimeType = text(storage.MaxMimeTypeLength), text(storage.MaxMimeTypeLength)
			a.Ref.Type = text(storage.MaxTypeLength)
		},
		"flat and empty": func(a *storage.Addition) {
			a.Blob.Path, a.Blob.Organization = idOf(a).String()+".bin", storage.OrganizationFlat
			a.Blob.Size, a.Blob.CRC = 0, 0
		},
		"extremes": func(a *storage.Addition) {
			a.Blob.Size, a.Blob.CRC = 1<<50, math.MaxUint32
			a.Blob.Path = text(120) + "/" + text(120) + "/é 会/" + idOf(a).String() + ".png"
			a.Blob.AccessedAt = creation(99)
		},
		"lifecycle": func(a *storage.Addition) {
			a.Ref.ExpiresAt, a.Ref.Count, a.Ref.Revision = creation(7), math.MaxInt32, math.MaxUint32
		},
		"expired before it began": func(a *storage.Addition) {
			a.Ref.ExpiresAt, a.Ref.Count, a.Ref.Revision = time.Date(1901, 1, 1, 0, 0, 0, 1000, time.UTC), 1, 1
		},
	}
	for name, m := range metadata {
		for kind, change := range blobs {
			add := f.next(name+kind, m)
			change(add)
			_, err := f.x.Add(f.ctx, add)
			require.NoError(f.t, err, "%s, %s", name, kind)
			ref, blob, err := f.x.Ref(f.ctx, idOf(add))
			require.NoError(f.t, err, "%s, %s", name, kind)
			requireRef(f.t, add.Ref, ref)
			want := add.Blob
			want.Refs = 1
			require.Equal(f.t, want, blob, "%s, %s", name, kind)
		}
	}
	before := f.snapshot()
	f.reopen()
	require.Equal(f.t, before, f.snapshot())
}

// Times come back in UTC and cut to the microsecond; the zero time stays zero.
func testTimes(f *fixture) {
	east := time.FixedZone("east", 5*3600+1800)
	for _, at := range []time.Time{
		time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC),
		time.Date(2026, 3, 1, 12, 0, 0, 999999999, east),
		time.Unix(0, 0),
		time.Unix(0, 1000),
		time.Unix(-1, 999999000),
		time.Date(1901, 1, 1, 0, 0, 0, 1000, time.UTC),
		time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		add := f.next(at.String(), storage.MediaMetadata{CreatedAt: at})
		add.Blob.CreatedAt, add.Blob.AccessedAt = at, at
		_, err := f.x.Add(f.ctx, add)
		require.NoError(f.t, err)
		ref, blob, err := f.x.Ref(f.ctx, idOf(add))
		require.NoError(f.t, err)
		want := at.UTC().Truncate(time.Microsecond)
		require.Equal(f.t, want, ref.Metadata.CreatedAt)
		require.Equal(f.t, want, blob.CreatedAt)
		require.Equal(f.t, want, blob.AccessedAt)
	}
	add := f.next("zero", storage.MediaMetadata{})
	add.Ref.Metadata.CreatedAt, add.Blob.CreatedAt, add.Blob.AccessedAt = time.Time{}, time.Time{}, time.Time{}
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	f.reopen()
	ref, blob, err := f.x.Ref(f.ctx, idOf(add))
	require.NoError(f.t, err)
	require.True(f.t, ref.Metadata.CreatedAt.IsZero())
	require.True(f.t, blob.CreatedAt.IsZero())
	require.True(f.t, blob.AccessedAt.IsZero())
}

// A touch may wait, but not beyond the next change or the closing, and changes
// nothing else.
func testTouch(f *fixture) {
	a, b := f.mustAdd("a", storage.MediaMetadata{}), f.mustAdd("b", storage.MediaMetadata{})
	want := f.mustBlob(keyOf("a"))
	require.True(f.t, want.AccessedAt.IsZero())

	want.AccessedAt = time.Date(2026, 5, 6, 7, 8, 9, 123456000, time.UTC)
	f.x.Touch(keyOf("a"), want.AccessedAt.Add(999))
	f.x.Touch(keyOf("nowhere"), want.AccessedAt)
	f.mustAdd("c", storage.MediaMetadata{})
	require.Equal(f.t, want, f.mustBlob(keyOf("a")))
	_, err := f.x.Blob(f.ctx, keyOf("nowhere"))
	require.ErrorIs(f.t, err, storage.ErrNotFound)

	want.AccessedAt = want.AccessedAt.Add(time.Hour)
	f.x.Touch(keyOf("a"), want.AccessedAt)
	f.reopen()
	require.Equal(f.t, want, f.mustBlob(keyOf("a")))

	want.AccessedAt, want.Refs = want.AccessedAt.Add(time.Hour), 2
	f.x.Touch(keyOf("a"), want.AccessedAt)
	f.mustAdd("a", storage.MediaMetadata{})
	require.Equal(f.t, want, f.mustBlob(keyOf("a")), "touched and added to at once")

	f.x.Touch(keyOf("a"), want.AccessedAt.Add(time.Hour))
	f.x.Touch(keyOf("b"), want.AccessedAt.Add(time.Hour))
	f.mustRemove(b)
	f.mustRemove(a)
	_, err = f.x.Blob(f.ctx, keyOf("b"))
	require.ErrorIs(f.t, err, storage.ErrNotFound, "a touch brought a blob back")
	require.Equal(f.t, int64(1), f.mustBlob(keyOf("a")).Refs)
}
