package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// shortID is what of an ID says when it was made.
func shortID(id string) string { return id[len("a1b2c3-"):] }

// addedAt is when a reference was made, as its ID says.
func addedAt(id string) time.Time {
	parsed, err := storage.ParseID(id)
	if err != nil {
		panic(err) // the model holds what stores returned
	}
	return parsed.UUID.Time()
}

// within says whether from <= t < to, where zero bounds are none.
func within(t, from, to time.Time) bool {
	return (from.IsZero() || !t.Before(from)) && (to.IsZero() || t.Before(to))
}

// matches says whether a query's filters let a reference of the model through.
func (m *model) matches(q *engine.Query, id string) bool {
	ref := m.refs[id]
	size := int64(len(m.blobs[ref.blob].data))
	for key, value := range q.Labels {
		if got, there := ref.meta.Labels[key]; !there || got != value {
			return false
		}
	}
	for _, pair := range [][2]string{
		{q.SessionID, ref.meta.SessionID}, {q.ConversationID, ref.meta.ConversationID}, {q.RunID, ref.meta.RunID},
		{q.UserID, ref.meta.UserID}, {q.Policy, ref.meta.Policy}, {q.Type, ref.info.Type}, {q.Digest.String(), storage.Digest(sha256.Sum256(m.blobs[ref.blob].data)).String()},
	} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return strings.HasPrefix(ref.info.MimeType, strings.ToLower(q.MimeType)) && size >= q.SizeFrom && (q.SizeTo == 0 || size < q.SizeTo) &&
		(!ref.expires.IsZero() || q.ExpiresFrom.IsZero() && q.ExpiresTo.IsZero() && q.Order != engine.Soonest) && (ref.expires.IsZero() || !q.NeverExpires) &&
		(ref.expires.IsZero() || within(ref.expires, q.ExpiresFrom, q.ExpiresTo)) &&
		within(ref.meta.CreatedAt, q.CreatedFrom, q.CreatedTo) && within(addedAt(id), q.AddedFrom, q.AddedTo)
}

// want is the IDs of the references that a query lists, without its limit and
// cursor, in its order.
func (m *model) want(q *engine.Query) []string {
	ids := slices.DeleteFunc(slices.Collect(maps.Keys(m.refs)), func(id string) bool { return !m.matches(q, id) })
	slices.SortFunc(ids, func(a, b string) int {
		if q.Order == engine.Newest {
			a, b = b, a
		}
		if c := m.refs[a].expires.Compare(m.refs[b].expires); q.Order == engine.Soonest && c != 0 {
			return c
		}
		return strings.Compare(shortID(a), shortID(b))
	})
	return ids
}

// checkList compares a listing with the model, read in pages of that many entries
// by cursors, or as a whole where page is 0.
func (m *model) checkList(f *engine.FileStore, q engine.Query, page int) error {
	want := m.want(&q)
	limited := q.Limit > 0
	if limited {
		want = want[:min(q.Limit, len(want))]
	}
	if page > 0 {
		q.Limit = page
	}
	got := []string{}
	for {
		listed := 0
		for e, err := range f.List(context.Background(), q) {
			if err != nil {
				return err
			}
			if err := m.checkEntry(&e); err != nil {
				return err
			}
			if !e.AddedAt.Equal(addedAt(e.Reference.ID)) {
				return fmt.Errorf("reference %s was added at %v", e.Reference.ID, e.AddedAt)
			}
			got = append(got, e.Reference.ID)
			q.Cursor = q.After(&e)
			listed++
		}
		if page == 0 || listed < page || len(got) > len(want) {
			break
		}
	}
	if page > 0 && limited {
		got = got[:min(len(got), len(want))] // a last page goes past the limit of the whole
	}
	if !slices.Equal(want, got) {
		return fmt.Errorf("listed for %+v: %q, want %q", q, got, want)
	}
	return nil
}

// checkReferences compares everyone with these bytes with the model.
func (m *model) checkReferences(f *engine.FileStore, data []byte) error {
	digest := storage.Digest(sha256.Sum256(data))
	got := []string{}
	for e, err := range f.References(context.Background(), digest) {
		if err != nil {
			return err
		}
		got = append(got, e.Reference.ID)
	}
	if want := m.want(&engine.Query{Digest: digest}); !slices.Equal(want, got) {
		return fmt.Errorf("references to %s: %q, want %q", digest, got, want)
	}
	return nil
}

// drawQuery draws a query whose bounds are near what is there.
func (m *machine) drawQuery(t *rapid.T) engine.Query {
	q := engine.Query{
		ConversationID: drawID.Draw(t, "conversation"), SessionID: drawID.Draw(t, "session"),
		RunID: drawID.Draw(t, "run"), UserID: drawID.Draw(t, "user"),
		Order: rapid.SampledFrom([]engine.Order{"", engine.Oldest, engine.Newest, engine.Soonest}).Draw(t, "order"),
	}
	for _, id := range []*string{&q.ConversationID, &q.SessionID, &q.RunID, &q.UserID} {
		if rapid.IntRange(0, 2).Draw(t, "any ID") > 0 {
			*id = "" // all four together let nearly nothing through
		}
	}
	ids := slices.Sorted(maps.Keys(m.model.refs))
	if len(ids) == 0 {
		return q
	}
	some := func(what string) *modelRef { return m.model.refs[rapid.SampledFrom(ids).Draw(t, what)] }
	draw := func(filter string) bool { return rapid.IntRange(0, 4).Draw(t, filter) == 0 }
	if draw("by type") {
		q.Type = some("type of").info.Type
	}
	if draw("by MIME type") {
		mimeType := some("MIME type of").info.MimeType
		q.MimeType = strings.ToUpper(mimeType[:rapid.IntRange(0, len(mimeType)).Draw(t, "prefix")])
	}
	if draw("by labels") {
		q.Labels = some("labels of").meta.Labels
	}
	if draw("by digest") {
		q.Digest = sha256.Sum256(m.model.blobs[some("bytes of").blob].data)
	}
	if draw("by size") {
		a, b := len(m.model.blobs[some("size of").blob].data), len(m.model.blobs[some("size of").blob].data)
		q.SizeFrom, q.SizeTo = int64(min(a, b)), int64(max(a, b)+rapid.IntRange(0, 1).Draw(t, "more"))
	}
	bounds := func(a, b time.Time) (from, to time.Time) {
		if a.After(b) {
			a, b = b, a
		}
		if rapid.Bool().Draw(t, "from") {
			from = a
		}
		if rapid.Bool().Draw(t, "to") {
			to = b
		}
		return from, to
	}
	if draw("by creation") {
		q.CreatedFrom, q.CreatedTo = bounds(some("creation of").meta.CreatedAt, some("creation of").meta.CreatedAt)
	}
	if draw("by addition") {
		q.AddedFrom, q.AddedTo = bounds(addedAt(rapid.SampledFrom(ids).Draw(t, "addition of")), addedAt(rapid.SampledFrom(ids).Draw(t, "addition of")))
	}
	if draw("by policy") {
		q.Policy = some("policy of").meta.Policy
	}
	if draw("by expiry") {
		a, b := some("expiry of").expires, some("expiry of").expires
		if !a.IsZero() && !b.IsZero() {
			q.ExpiresFrom, q.ExpiresTo = bounds(a, b)
		}
	}
	if q.Order != engine.Soonest && q.ExpiresFrom.IsZero() && q.ExpiresTo.IsZero() && draw("for ever") {
		q.NeverExpires = true
	}
	if draw("limited") {
		q.Limit = rapid.IntRange(1, 5).Draw(t, "limit")
	}
	return q
}

// list lists something while others store and delete. Who was there before and is
// there afterwards must be listed if it matches, nobody twice or out of order, and
// nobody who does not match.
func (m *sharedModel) list(r *rand.Rand) error {
	queries := []engine.Query{
		{SessionID: "a"}, {SessionID: "a", ConversationID: "b"}, {RunID: "b", Labels: map[string]string{"n": "1"}}, {MimeType: "image/"},
		{SizeFrom: 100, SizeTo: 5000}, {Digest: sha256.Sum256(modelContents()[r.IntN(len(modelContents()))])},
		{SessionID: "b", AddedTo: time.Now()}, {AddedFrom: time.Now().Add(-time.Second)},
	}
	q := queries[r.IntN(len(queries))]
	q.Order = []engine.Order{engine.Oldest, engine.Newest}[r.IntN(2)]
	m.mu.Lock()
	before := slices.Clone(m.refs)
	m.mu.Unlock()
	page := 1 + r.IntN(20)
	seen := map[string]bool{}
	last := ""
	for more := true; more; {
		q.Limit, more = page, false
		listed := 0
		for e, err := range m.store.List(context.Background(), q) {
			if err != nil {
				return err
			}
			id := shortID(e.Reference.ID)
			if seen[e.Reference.ID] || last != "" && (id > last) == (q.Order == engine.Newest) {
				return fmt.Errorf("%s after %s in %+v", id, last, q)
			}
			if one := (&model{
				refs:  map[string]*modelRef{e.Reference.ID: {blob: "one", info: storage.MediaInfo{Type: e.Type, MimeType: e.MimeType}, meta: e.Metadata}},
				blobs: map[string]*modelBlob{"one": {data: make([]byte, e.Size)}},
			}); q.Digest.IsZero() && !one.matches(&q, e.Reference.ID) || !q.Digest.IsZero() && e.Digest != q.Digest {
				return fmt.Errorf("listed for %+v: %+v", q, e)
			}
			seen[e.Reference.ID], last = true, id
			q.Cursor = q.After(&e)
			listed++
		}
		more = listed == page
	}
	return m.missing(&q, before, seen)
}

// missing is an error if a reference that lived all the time matches and was not
// seen.
func (m *sharedModel) missing(q *engine.Query, before []*sharedRef, seen map[string]bool) error {
	for _, ref := range before {
		if seen[ref.id] {
			continue
		}
		one := &model{
			refs:  map[string]*modelRef{ref.id: {blob: "one", info: ref.info, meta: ref.meta}},
			blobs: map[string]*modelBlob{"one": {data: ref.data}},
		}
		if !one.matches(q, ref.id) {
			continue
		}
		_, err := m.store.Stat(context.Background(), &storage.StorageReference{ID: ref.id})
		if errors.Is(err, storage.ErrNotFound) {
			continue // deleted meanwhile
		}
		return errors.Join(err, fmt.Errorf("reference %s was there all the time and is not listed for %+v", ref.id, *q))
	}
	return nil
}
