package engine_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// listed is the IDs that a query lists.
func listed(t testing.TB, f *engine.FileStore, q engine.Query) []string {
	t.Helper()
	ids := []string{}
	for e, err := range f.List(context.Background(), q) {
		require.NoError(t, err)
		ids = append(ids, e.Reference.ID)
	}
	return ids
}

// listError is the error that ends a list before its first entry.
func listError(t testing.TB, f *engine.FileStore, q engine.Query) error {
	t.Helper()
	for e, err := range f.List(context.Background(), q) {
		require.Zero(t, e)
		return err
	}
	return nil
}

func TestListFilters(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	stored := []struct {
		size           int
		kind, mimeType string
		meta           storage.MediaMetadata
	}{
		{0, "image", "image/png", storage.MediaMetadata{CreatedAt: day(3), Labels: map[string]string{"model": "m", "empty": ""}}},
		{10, "image", "Image/JPEG", storage.MediaMetadata{CreatedAt: day(1), Labels: map[string]string{"model": "n"}}},
		{20, "audio", "audio/mpeg", storage.MediaMetadata{CreatedAt: day(2)}},
		{20, "of our own", "image/svg+xml", storage.MediaMetadata{CreatedAt: day(3), Labels: map[string]string{"model": "m", "file": "x"}}},
		{30, "document", "application/pdf", storage.MediaMetadata{CreatedAt: day(4)}},
	}
	var ids []string
	var added []time.Time
	for _, s := range stored {
		ref, err := f.StoreReader(context.Background(), strings.NewReader(strings.Repeat("x", s.size)), storage.MediaInfo{Type: s.kind, MimeType: s.mimeType}, s.meta)
		require.NoError(t, err)
		ids = append(ids, ref.ID)
		added = append(added, mustStat(t, f, ref).AddedAt)
		time.Sleep(time.Millisecond)
	}
	twenty := storage.Digest(sha256.Sum256([]byte(strings.Repeat("x", 20))))
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		query engine.Query
		want  []int
	}{
		"type":                        {engine.Query{Type: "image"}, []int{0, 1}},
		"type that is a prefix":       {engine.Query{Type: "imag"}, nil},
		"MIME prefix":                 {engine.Query{MimeType: "image/"}, []int{0, 1, 3}},
		"MIME type in capitals":       {engine.Query{MimeType: "IMAGE/jpeg"}, []int{1}},
		"longer than any MIME type":   {engine.Query{MimeType: strings.Repeat("i", 1000)}, nil},
		"label":                       {engine.Query{Labels: map[string]string{"model": "m"}}, []int{0, 3}},
		"labels":                      {engine.Query{Labels: map[string]string{"model": "m", "file": "x"}}, []int{3}},
		"empty label":                 {engine.Query{Labels: map[string]string{"empty": ""}}, []int{0}},
		"label of another value":      {engine.Query{Labels: map[string]string{"model": ""}}, nil},
		"created from, included":      {engine.Query{CreatedFrom: day(3)}, []int{0, 3, 4}},
		"created to, not included":    {engine.Query{CreatedTo: day(3)}, []int{1, 2}},
		"created within":              {engine.Query{CreatedFrom: day(2), CreatedTo: day(4)}, []int{0, 2, 3}},
		"created within nothing":      {engine.Query{CreatedFrom: day(2), CreatedTo: day(2)}, nil},
		"size from, included":         {engine.Query{SizeFrom: 20}, []int{2, 3, 4}},
		"size to, not included":       {engine.Query{SizeTo: 20}, []int{0, 1}},
		"empty":                       {engine.Query{SizeTo: 1}, []int{0}},
		"digest":                      {engine.Query{Digest: twenty}, []int{2, 3}},
		"digest and type":             {engine.Query{Digest: twenty, Type: "audio"}, []int{2}},
		"added from, included":        {engine.Query{AddedFrom: added[2]}, []int{2, 3, 4}},
		"added to, not included":      {engine.Query{AddedTo: added[2]}, []int{0, 1}},
		"added within":                {engine.Query{AddedFrom: added[1], AddedTo: added[3]}, []int{1, 2}},
		"added in a nanosecond":       {engine.Query{AddedFrom: added[1], AddedTo: added[1].Add(1)}, []int{1}},
		"added before the clock":      {engine.Query{AddedTo: year(1960)}, nil},
		"added since before it":       {engine.Query{AddedFrom: year(1960)}, []int{0, 1, 2, 3, 4}},
		"added in the far future":     {engine.Query{AddedFrom: year(9999)}, nil},
		"added until then":            {engine.Query{AddedTo: year(9999)}, []int{0, 1, 2, 3, 4}},
		"limit":                       {engine.Query{Limit: 2}, []int{0, 1}},
		"limit of what a filter lets": {engine.Query{MimeType: "image/", Limit: 3}, []int{0, 1, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			want := []string{}
			for _, i := range c.want {
				want = append(want, ids[i])
			}
			require.Equal(t, want, listed(t, f, c.query))
			if c.query.Limit > 0 {
				return
			}
			c.query.Order = engine.Newest
			got := listed(t, f, c.query)
			require.Len(t, got, len(want))
			for i, id := range got {
				require.Equal(t, want[len(want)-1-i], id, "newest first")
			}
		})
	}
}

func TestCursors(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	var refs []*storage.StorageReference
	for i := range 9 {
		refs = append(refs, mustStore(t, f, []byte{byte(i)}, storage.MediaMetadata{SessionID: fmt.Sprint(i % 2)}))
	}
	q := engine.Query{SessionID: "0", Limit: 2}
	require.Equal(t, []string{refs[0].ID, refs[2].ID}, listed(t, f, q))
	e := mustStat(t, f, refs[2])
	q.Cursor = q.After(&e)
	require.NoError(t, f.Delete(context.Background(), refs[2]))
	require.Equal(t, []string{refs[4].ID, refs[6].ID}, listed(t, f, q), "the entry of the cursor may go")
	require.Equal(t, []string{refs[3].ID, refs[5].ID}, listed(t, f, engine.Query{SessionID: "1", Limit: 2, Cursor: q.Cursor}),
		"a place in another list of the same order")
	require.Equal(t, []string{refs[5].ID}, listed(t, f, engine.Query{
		SessionID: "1", Limit: 1, Cursor: q.Cursor, AddedFrom: mustStat(t, f, refs[4]).AddedAt,
	}), "whichever of place and time is later")
	newest := engine.Query{SessionID: "0", Order: engine.Newest}
	newest.Cursor = newest.After(&e)
	require.Equal(t, []string{refs[0].ID}, listed(t, f, newest))
	last := mustStat(t, f, refs[8])
	require.Empty(t, listed(t, f, engine.Query{Cursor: (&engine.Query{}).After(&last)}))

	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	require.Equal(t, []string{refs[4].ID, refs[6].ID}, listed(t, f, q))

	good := string(q.Cursor)
	for what, bad := range map[string]engine.Query{
		"of the other order":      {Order: engine.Newest, Cursor: q.Cursor},
		"of the other order, too": {Cursor: newest.Cursor},
		"cut short":               {Cursor: engine.Cursor(good[:len(good)-1])},
		"too long":                {Cursor: engine.Cursor(good + "A")},
		"changed":                 {Cursor: engine.Cursor(good[:8] + otherLetter(good[8]) + good[9:])},
		"of a later version":      {Cursor: engine.Cursor("Ag" + good[2:])},
		"no text of ours":         {Cursor: "behind the third"},
		"an ID":                   {Cursor: engine.Cursor(refs[0].ID)},
		"of no entry":             {Cursor: q.After(&engine.Entry{})},
		"with a line break":       {Cursor: engine.Cursor(good + "\n")},
		"of wrong order byte":     {Cursor: "AXA"},
	} {
		err := listError(t, f, bad)
		require.ErrorIs(t, err, storage.ErrInvalidQuery, what)
		require.ErrorContains(t, err, config.BaseDir, what)
		require.ErrorContains(t, err, "cursor", what)
		require.Less(t, len(err.Error()), 500)
	}
}

// otherLetter is another letter.
func otherLetter(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestListByExpiry(t *testing.T) {
	f, clock, _ := openClocked(t)
	var refs []string
	for i, policy := range []string{"3h", "1h", "", "2h", "retain", "1h", "retain-1day"} {
		refs = append(refs, mustStore(t, f, bytesOf(10, byte(i)), storage.MediaMetadata{SessionID: fmt.Sprint(i % 2), Policy: policy}).ID)
		time.Sleep(time.Millisecond)
	}
	pick := func(list ...int) []string {
		ids := []string{}
		for _, i := range list {
			ids = append(ids, refs[i])
		}
		return ids
	}
	in := func(hours int) time.Time { return clock.now().Add(time.Duration(hours) * time.Hour) }
	soonest := engine.Query{Order: engine.Soonest}
	for what, c := range map[string]struct {
		q    engine.Query
		want []string
	}{
		"all that expires":   {soonest, pick(1, 5, 3, 0, 6)},
		"of a session":       {engine.Query{Order: engine.Soonest, SessionID: "1"}, pick(1, 5, 3)},
		"from":               {engine.Query{Order: engine.Soonest, ExpiresFrom: in(2)}, pick(3, 0, 6)},
		"just after":         {engine.Query{Order: engine.Soonest, ExpiresFrom: in(2).Add(1)}, pick(0, 6)},
		"to":                 {engine.Query{Order: engine.Soonest, ExpiresTo: in(2)}, pick(1, 5)},
		"to just after":      {engine.Query{Order: engine.Soonest, ExpiresTo: in(2).Add(1)}, pick(1, 5, 3)},
		"from to":            {engine.Query{Order: engine.Soonest, ExpiresFrom: in(2), ExpiresTo: in(4)}, pick(3, 0)},
		"limited":            {engine.Query{Order: engine.Soonest, Limit: 3}, pick(1, 5, 3)},
		"added":              {engine.Query{Order: engine.Soonest, AddedFrom: addedAt(refs[3]), AddedTo: addedAt(refs[6])}, pick(5, 3)},
		"with a policy":      {engine.Query{Order: engine.Soonest, Policy: "1h"}, pick(1, 5)},
		"in order of adding": {engine.Query{ExpiresTo: in(3)}, pick(1, 3, 5)},
		"newest":             {engine.Query{ExpiresFrom: in(2), Order: engine.Newest}, pick(6, 3, 0)},
		"never":              {engine.Query{NeverExpires: true}, pick(2, 4)},
		"policy for ever":    {engine.Query{Policy: "retain"}, pick(4)},
		"never, limited":     {engine.Query{NeverExpires: true, Limit: 1}, pick(2)},
	} {
		require.Equal(t, c.want, listed(t, f, c.q), what)
	}

	q := engine.Query{Order: engine.Soonest, Limit: 2}
	e := mustStat(t, f, &storage.StorageReference{ID: refs[1]})
	q.Cursor = q.After(&e)
	require.Equal(t, pick(5, 3), listed(t, f, q), "of two that expire at once, the place is behind one")
	e = mustStat(t, f, &storage.StorageReference{ID: refs[3]})
	q.Cursor = q.After(&e)
	require.NoError(t, f.Delete(context.Background(), &e.Reference))
	require.Equal(t, pick(0, 6), listed(t, f, q), "the entry of the cursor may go")
	q.ExpiresFrom = in(5)
	require.Equal(t, pick(6), listed(t, f, q), "whichever of place and time is later")
	mustRetain(t, f, &storage.StorageReference{ID: refs[4]}, "30m")
	require.Equal(t, pick(4, 1, 5, 0, 6), listed(t, f, soonest))

	never := mustStat(t, f, &storage.StorageReference{ID: refs[2]})
	for what, bad := range map[string]engine.Query{
		"of another order":          {Cursor: q.Cursor},
		"of yet another order":      {Order: engine.Soonest, Cursor: (&engine.Query{}).After(&e)},
		"behind what never expires": {Order: engine.Soonest, Cursor: q.After(&never)},
		"behind no entry":           {Order: engine.Soonest, Cursor: q.After(&engine.Entry{})},
		"cut short":                 {Order: engine.Soonest, Cursor: q.Cursor[:len(q.Cursor)-2]},
		"never and soonest":         {Order: engine.Soonest, NeverExpires: true},
		"never and before":          {ExpiresTo: in(1), NeverExpires: true},
		"backwards":                 {ExpiresFrom: in(2), ExpiresTo: in(1)},
		"past the end of time":      {ExpiresTo: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		require.ErrorIs(t, listError(t, f, bad), storage.ErrInvalidQuery, what)
	}
}

// Lists in order of expiry are read page by page.
func TestLongListByExpiry(t *testing.T) {
	clock := newClock()
	f := mustOpen(t, engine.WithClock(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}, clock.now))
	const many = 600
	at := map[string]time.Time{}
	for i := range many {
		ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{Policy: fmt.Sprintf("%ds", 1+i*7%97)})
		at[ref.ID] = mustStat(t, f, ref).ExpiresAt
	}
	ids := listed(t, f, engine.Query{Order: engine.Soonest})
	require.Len(t, ids, many)
	for i := 1; i < many; i++ {
		a, b := at[ids[i-1]], at[ids[i]]
		require.True(t, a.Before(b) || a.Equal(b) && shortID(ids[i-1]) < shortID(ids[i]), "%d", i)
	}
	q := engine.Query{Order: engine.Soonest, Limit: 7}
	paged := []string{}
	for {
		page := listed(t, f, q)
		paged = append(paged, page...)
		if len(page) < q.Limit {
			break
		}
		e := mustStat(t, f, &storage.StorageReference{ID: page[len(page)-1]})
		q.Cursor = q.After(&e)
	}
	require.Equal(t, ids, paged)
}

func FuzzCursor(f *testing.F) {
	store := mustOpen(f, engine.FileStoreConfig{BaseDir: f.TempDir(), Sync: engine.SyncNone})
	e := mustStat(f, store, mustStore(f, store, []byte("x"), storage.MediaMetadata{Policy: "36h"}))
	f.Add(string((&engine.Query{Order: engine.Soonest}).After(&e)))
	f.Add(string((&engine.Query{}).After(&e)))
	f.Add(string((&engine.Query{Order: engine.Newest}).After(&e)))
	f.Add("")
	f.Add("AW8")
	f.Fuzz(func(t *testing.T, cursor string) {
		oldest := listError(t, store, engine.Query{Cursor: engine.Cursor(cursor), AddedFrom: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
		newest := listError(t, store, engine.Query{Cursor: engine.Cursor(cursor), Order: engine.Newest, AddedTo: time.Unix(1, 0)})
		soonest := listError(t, store, engine.Query{Cursor: engine.Cursor(cursor), Order: engine.Soonest, ExpiresTo: time.Unix(1, 0)})
		for _, err := range []error{oldest, newest, soonest} {
			if err != nil {
				require.ErrorIs(t, err, storage.ErrInvalidQuery)
			}
		}
		right := 0
		for _, err := range []error{oldest, newest, soonest} {
			if err == nil {
				right++
			}
		}
		require.True(t, cursor == "" || right <= 1, "of one order alone")
	})
}

func TestQueriesThatCannotBeAsked(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	mustStore(t, f, []byte("x"), storage.MediaMetadata{})
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for names, q := range map[string]engine.Query{
		"limit -1":          {Limit: -1},
		`order "random"`:    {Order: "random"},
		"without a key":     {Labels: map[string]string{"": "x"}},
		"from -1":           {SizeFrom: -1},
		"to -1":             {SizeTo: -1},
		"sizes from 2 to 1": {SizeFrom: 2, SizeTo: 1},
		"created from":      {CreatedFrom: at, CreatedTo: at.Add(-1)},
		"added from":        {AddedFrom: at, AddedTo: at.Add(-1)},
		"year outside 1":    {AddedFrom: at.AddDate(20000, 0, 0)},
		"created -0001":     {CreatedTo: at.AddDate(-2027, 0, 0)},
	} {
		err := listError(t, f, q)
		require.ErrorIs(t, err, storage.ErrInvalidQuery, names)
		require.ErrorContains(t, err, names)
	}
	for e, err := range f.References(context.Background(), storage.Digest{}) {
		require.Zero(t, e)
		require.ErrorIs(t, err, storage.ErrInvalidQuery)
	}
}

// Who has the same bytes is told at once, before any sidecar has a line, whether
// the bytes are shared or not, and until the last of them is deleted.
func TestReferences(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	data := bytesOf(5000, 1)
	digest := storage.Digest(sha256.Sum256(data))
	mustStore(t, f, bytesOf(5000, 2), storage.MediaMetadata{SessionID: "other"})
	var refs []*storage.StorageReference
	for i := range 3 {
		refs = append(refs, mustStore(t, f, data, storage.MediaMetadata{SessionID: fmt.Sprint("s", i)}))
	}
	require.NoError(t, f.Close())
	config.EnableDeduplication = false
	f = mustOpen(t, config)
	for range 2 {
		refs = append(refs, mustStore(t, f, data, storage.MediaMetadata{SessionID: "own"}))
	}
	references := func() (ids []string, paths map[string]int) {
		paths = map[string]int{}
		for e, err := range f.References(ctx, digest) {
			require.NoError(t, err)
			require.Equal(t, digest, e.Digest)
			ids = append(ids, e.Reference.ID)
			paths[e.Path]++
		}
		return ids, paths
	}
	all, paths := references()
	require.Len(t, paths, 3, "one blob is shared by three, two have one each")
	for i, ref := range refs {
		require.Equal(t, ref.ID, all[i])
	}
	for i, ref := range refs {
		require.NoError(t, f.Delete(ctx, ref))
		left, _ := references()
		require.Equal(t, len(refs)-1-i, len(left))
		require.NotContains(t, left, ref.ID)
	}
}
