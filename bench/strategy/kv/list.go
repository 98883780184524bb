package kv

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// maxScan bounds the rows that one page looks at, as in boltindex.
const maxScan = 1024

// Refs is a page of references; see engine.Index.
func (x *Index) Refs(ctx context.Context, filter storage.RefFilter, after storage.UUID, limit int) (page []storage.RefPair, next storage.UUID, more bool, err error) {
	next = after
	err = x.view(ctx, func(r Reader) error {
		scanned := 0
		for id, err := range narrowest(r, &filter, after) {
			if err != nil {
				return err
			}
			if len(page) == limit || scanned == maxScan {
				more = true
				return nil
			}
			scanned++
			next = id
			row, found, err := r.Get(Refs, id[:])
			if err != nil {
				return err
			} else if !found {
				return fmt.Errorf("%w: reference %s is listed and has no row", storage.ErrCorrupted, id)
			}
			var pair storage.RefPair
			if pair.Ref, pair.Blob, err = readPair(r, id, row); err != nil {
				return err
			}
			if filter.Matches(&pair) {
				page = append(page, pair)
			}
		}
		return nil
	})
	return page, next, more, err
}

// lastUUID is after that of every reference.
var lastUUID = storage.UUID(bytes.Repeat([]byte{0xff}, len(storage.UUID{})))

// narrowest is a list that holds every reference that filter lets through, those
// after a UUID in its order.
func narrowest(r Reader, f *storage.RefFilter, after storage.UUID) iter.Seq2[storage.UUID, error] {
	if f.Newest && after.IsZero() {
		after = lastUUID
	}
	lists := memberships(f.Digest, &storage.RefRow{Metadata: storage.MediaMetadata{
		ConversationID: f.ConversationID, SessionID: f.SessionID, RunID: f.RunID, UserID: f.UserID,
	}})
	switch {
	case len(lists) == 0:
		return listed(r, Refs, nil, after, f.Newest)
	case lists[0].table == ByDigest:
		return withFounder(r, listed(r, ByDigest, lists[0].prefix(), after, f.Newest), f, after)
	}
	return listed(r, lists[0].table, lists[0].prefix(), after, f.Newest)
}

// listed is the references of a table whose keys are a prefix and a UUID, those
// after a UUID in either direction.
func listed(r Reader, table Table, prefix []byte, after storage.UUID, back bool) iter.Seq2[storage.UUID, error] {
	return func(yield func(storage.UUID, error) bool) {
		start := append(prefix[:len(prefix):len(prefix)], after[:]...)
		walk := r.From
		if back {
			walk = r.Before
		}
		for row, err := range walk(table, start) {
			if err != nil {
				yield(storage.UUID{}, err)
				return
			}
			if !bytes.HasPrefix(row.Key, prefix) {
				return
			}
			if len(row.Key) != len(start) || bytes.Equal(row.Key, start) {
				continue // of a longer ID that begins with this one, or already seen
			}
			if !yield(storage.UUID(row.Key[len(prefix):]), nil) {
				return
			}
		}
	}
}

// withFounder adds to the list of a digest the reference that its shared blob is
// named after, which is in no list.
func withFounder(r Reader, list iter.Seq2[storage.UUID, error], f *storage.RefFilter, after storage.UUID) iter.Seq2[storage.UUID, error] {
	sooner := func(a, b storage.UUID) bool { return (bytes.Compare(a[:], b[:]) < 0) != f.Newest }
	return func(yield func(storage.UUID, error) bool) {
		blob, _, err := readBlob(r, storage.DigestKey(f.Digest))
		founder, waits := blob.Founder()
		if waits = waits && founder != after && sooner(after, founder); waits && err == nil {
			_, waits, err = r.Get(Refs, founder[:])
		}
		if err != nil {
			yield(founder, err)
			return
		}
		for id, err := range list {
			if waits && err == nil && sooner(founder, id) {
				if waits = false; !yield(founder, nil) {
					return
				}
			}
			if !yield(id, err) {
				return
			}
		}
		if waits {
			yield(founder, nil)
		}
	}
}

// Due is a page of references by expiry; see engine.Index.
func (x *Index) Due(ctx context.Context, before time.Time, after storage.Place, limit int) (page []storage.RefPair, next storage.Place, more bool, err error) {
	next = after
	err = x.view(ctx, func(r Reader) error {
		start := expiryList(after.At).key(after.UUID)
		for row, err := range r.From(ByExpiry, start) {
			if err != nil {
				return err
			}
			place := storage.Place{At: expiryOf(row.Key), UUID: storage.UUID(row.Key[len(start)-len(after.UUID):])}
			if bytes.Equal(row.Key, start) {
				continue
			}
			if !place.At.Before(before) {
				return nil
			}
			if len(page) == limit {
				more = true
				return nil
			}
			ref, found, err := r.Get(Refs, place.UUID[:])
			if err == nil && !found {
				err = fmt.Errorf("%w: reference %s is listed and has no row", storage.ErrCorrupted, place.UUID)
			}
			if err != nil {
				return err
			}
			var pair storage.RefPair
			if pair.Ref, pair.Blob, err = readPair(r, place.UUID, ref); err != nil {
				return err
			}
			page, next = append(page, pair), place
		}
		return nil
	})
	return page, next, more, err
}

// kindTables are where the lists of the IDs of a kind are.
var kindTables = [...]Table{
	storage.ConversationIDs: ByConversation, storage.SessionIDs: BySession, storage.RunIDs: ByRun, storage.UserIDs: ByUser,
}

// IDs is a page of IDs; see engine.Index. It goes through all lists of the kind,
// since those of an ID that holds NUL may lie within those of a shorter one.
func (x *Index) IDs(ctx context.Context, kind storage.IDKind, after string, limit int) ([]string, error) {
	ids := map[string]bool{}
	err := x.view(ctx, func(r Reader) error {
		for row, err := range r.From(kindTables[kind], nil) {
			if err != nil {
				return err
			}
			if id := string(row.Key[:len(row.Key)-1-len(storage.UUID{})]); id > after {
				ids[id] = true
			}
		}
		return nil
	})
	page := slices.Sorted(maps.Keys(ids))
	return page[:min(limit, len(page))], err
}
