package boltindex

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// maxScan bounds the rows that one page looks at, so that a filter which lets
// little through does not hold a transaction for long: about 3 ms.
const maxScan = 1024

// Refs is a page of up to limit references that filter lets through, with
// their blobs, in the order of their UUIDs (so of their time) that it asks for,
// those after the UUID after. next is where the following page begins; more is
// false when there is none. A page may be empty and yet have more after it.
func (x *Index) Refs(ctx context.Context, filter storage.RefFilter, after storage.UUID, limit int) (page []storage.RefPair, next storage.UUID, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, after, false, err
	}
	next = after
	err = x.view(func(r *rows) error {
		scanned := 0
		for id, row := range r.narrowest(&filter, after) {
			if len(page) == limit || scanned == maxScan {
				more = true
				return nil
			}
			scanned++
			next = id
			var pair storage.RefPair
			var err error
			if pair.Ref, pair.Blob, err = r.readPair(id, row); err != nil {
				return err
			}
			if filter.Matches(&pair) {
				page = append(page, pair)
			}
		}
		return nil
	})
	return page, next, more, x.wrap(err)
}

// narrowest is the shortest list that is known to hold every reference that filter
// lets through, and perhaps others, those after a UUID in its order, with their
// rows.
func (r *rows) narrowest(f *storage.RefFilter, after storage.UUID) iter.Seq2[storage.UUID, []byte] {
	if f.Newest && after.IsZero() {
		after = lastUUID
	}
	for m := range memberships(f.Digest, &storage.RefRow{Metadata: storage.MediaMetadata{
		ConversationID: f.ConversationID, SessionID: f.SessionID, RunID: f.RunID, UserID: f.UserID,
	}}) {
		list := r.listed(m, after, f.Newest)
		if m.bucket == bucketByDigest {
			list = r.withFounder(list, f, after)
		}
		return list
	}
	return func(yield func(storage.UUID, []byte) bool) {
		for k, row := range r.after(bucketRefs, nil, after, f.Newest) {
			if !yield(storage.UUID(k), row) {
				return
			}
		}
	}
}

// lastUUID is after that of every reference.
var lastUUID = storage.UUID(bytes.Repeat([]byte{0xff}, len(storage.UUID{})))

// after is the rows of a bucket whose keys are a prefix and a UUID, those after a
// UUID in either direction.
func (r *rows) after(b bucket, prefix []byte, after storage.UUID, back bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		start := append(prefix[:len(prefix):len(prefix)], after[:]...)
		for k, v := range r.walk(b, start, back) {
			if len(k) != len(start) || !bytes.HasPrefix(k, prefix) {
				return
			}
			if !bytes.Equal(k, start) && !yield(k, v) {
				return
			}
		}
	}
}

// listed is the references of a list after a UUID, with their rows.
func (r *rows) listed(m membership, after storage.UUID, back bool) iter.Seq2[storage.UUID, []byte] {
	return func(yield func(storage.UUID, []byte) bool) {
		prefix := m.prefix()
		for k := range r.after(m.bucket, prefix, after, back) {
			id := storage.UUID(k[len(prefix):])
			row := r.get(bucketRefs, id[:])
			if row == nil {
				r.fail(fmt.Errorf("%w: reference %s is listed and has no row", storage.ErrCorrupted, id))
			}
			if r.err != nil || !yield(id, row) {
				return
			}
		}
	}
}

// withFounder adds to the list of a digest the reference that its shared blob is
// named after, which is in no list.
func (r *rows) withFounder(list iter.Seq2[storage.UUID, []byte], f *storage.RefFilter, after storage.UUID) iter.Seq2[storage.UUID, []byte] {
	sooner := func(a, b storage.UUID) bool { return (bytes.Compare(a[:], b[:]) < 0) != f.Newest }
	return func(yield func(storage.UUID, []byte) bool) {
		blob, err := r.lookup(storage.DigestKey(f.Digest))
		r.fail(err)
		var row []byte // of the founder, as long as it is still to come
		founder, named := blob.Founder()
		if named && founder != after && sooner(after, founder) {
			row = r.get(bucketRefs, founder[:])
		}
		for id, listed := range list {
			if row != nil && sooner(founder, id) {
				if !yield(founder, row) {
					return
				}
				row = nil
			}
			if !yield(id, listed) {
				return
			}
		}
		if row != nil {
			yield(founder, row)
		}
	}
}

// Due is a page of up to limit references that expire before a time, with their
// blobs, soonest first, those after a place. next is where the following page
// begins; more is false when there is none.
func (x *Index) Due(ctx context.Context, before time.Time, after storage.Place, limit int) (page []storage.RefPair, next storage.Place, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, after, false, err
	}
	next = after
	err = x.view(func(r *rows) error {
		start := append(expiryKey(after.At), after.UUID[:]...)
		for k := range r.from(bucketByExpiry, start) {
			if len(k) != len(start) {
				return fmt.Errorf("%w: list %s has key %x", storage.ErrCorrupted, bucketByExpiry, k)
			}
			place := storage.Place{At: expiryOf(k), UUID: storage.UUID(k[len(k)-len(after.UUID):])}
			if bytes.Equal(k, start) {
				continue
			}
			if more = place.At.Before(before); !more || len(page) == min(limit, maxScan) {
				return nil
			}
			row := r.get(bucketRefs, place.UUID[:])
			if row == nil {
				return cmp.Or(r.err, fmt.Errorf("%w: reference %s is listed and has no row", storage.ErrCorrupted, place.UUID))
			}
			var pair storage.RefPair
			var err error
			if pair.Ref, pair.Blob, err = r.readPair(place.UUID, row); err != nil {
				return err
			}
			page = append(page, pair)
			next = place
		}
		more = false
		return nil
	})
	return page, next, more, x.wrap(err)
}

// IDs is a page of up to limit IDs of a kind that references have, each once, those
// after the ID after (empty: from the first) in an order of the index's own: that
// of their hashes. Fewer mean that there are no more. The cost is that of the IDs,
// however many references they have. Of IDs whose hashes are equal only one is
// told (see listHash).
func (x *Index) IDs(ctx context.Context, kind storage.IDKind, after string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var page []string
	err := x.view(func(r *rows) error {
		var start []byte
		if after != "" {
			start = nextList(listOf(after))
		}
		for start != nil || after == "" && len(page) == 0 {
			if len(page) == limit {
				return nil
			}
			id, list, err := r.firstID(kind, start)
			if list == nil || err != nil {
				return err
			}
			page = append(page, id)
			start = nextList(list)
		}
		return nil
	})
	return page, x.wrap(err)
}

// firstID is the ID of the first list that does not begin before start, and what
// its keys begin with: nil where there is none.
func (r *rows) firstID(kind storage.IDKind, start []byte) (id string, list []byte, err error) {
	for k := range r.from(kindBuckets[kind], start) {
		if len(k) != listHash+len(storage.UUID{}) {
			return "", nil, fmt.Errorf("%w: list %s has key %x", storage.ErrCorrupted, kindBuckets[kind], k)
		}
		list = bytes.Clone(k[:listHash])
		ref := storage.UUID(k[listHash:])
		row := r.get(bucketRefs, ref[:])
		if row == nil {
			return "", nil, fmt.Errorf("%w: reference %s is listed and has no row", storage.ErrCorrupted, ref)
		}
		decoded, err := decodeRef(ref, row)
		if id = kind.Of(&decoded.Metadata); err == nil && (id == "" || !bytes.Equal(list, listOf(id))) {
			err = fmt.Errorf("%w: reference %s is in list %x of %s, which is not that of %q", storage.ErrCorrupted, ref, list, kindBuckets[kind], id)
		}
		return id, list, err
	}
	return "", nil, nil
}

// kindBuckets are where the lists of the IDs of a kind are.
var kindBuckets = [...]bucket{
	storage.ConversationIDs: bucketByConversation, storage.SessionIDs: bucketBySession,
	storage.RunIDs: bucketByRun, storage.UserIDs: bucketByUser,
}

// nextList is the least that the keys of a later list can begin with, nil after
// the last.
func nextList(list []byte) []byte {
	n := binary.BigEndian.Uint64(list) + 1
	if n == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, n)
}
