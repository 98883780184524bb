package boltindex

import (
	"context"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// usageRecord is a usage row.
type usageRecord struct {
	Refs  int64 `cbor:"1,keyasint"`
	Bytes int64 `cbor:"2,keyasint,omitempty"`
}

// usageKinds are the kinds of ID whose use is kept, and what leads their keys.
var usageKinds = [...]struct {
	kind   storage.IDKind
	prefix byte
	list   bucket
}{{storage.SessionIDs, 's', bucketBySession}, {storage.UserIDs, 'u', bucketByUser}}

// usageKey is the key of an ID's row. IDs that have their hash in common share it.
func usageKey(prefix byte, id string) []byte { return append([]byte{prefix}, listOf(id)...) }

// Usage is what the references of one session or user add up to. Errors:
// ErrInvalidQuery for IDs of other kinds, ErrCorrupted, or ctx's.
func (x *Index) Usage(ctx context.Context, kind storage.IDKind, id string) (storage.Usage, error) {
	if err := ctx.Err(); err != nil {
		return storage.Usage{}, err
	}
	for _, k := range usageKinds {
		if k.kind != kind {
			continue
		}
		row, err := x.row(bucketUsage, usageKey(k.prefix, id))
		if err != nil {
			return storage.Usage{}, x.wrap(err)
		}
		u, err := decodeUsage(row)
		return storage.Usage(u), x.wrap(err)
	}
	return storage.Usage{}, fmt.Errorf("%w: the use of IDs of kind %d is not kept", storage.ErrInvalidQuery, kind)
}

// decodeUsage reads a row; nil is none.
func decodeUsage(row []byte) (u usageRecord, err error) {
	if row != nil {
		err = decode(row, &u)
	}
	return u, err
}

// use counts n references like one with metadata m to a blob of a size.
func (t *txn) use(m *storage.MediaMetadata, size, n int64) error {
	for _, k := range usageKinds {
		id := k.kind.Of(m)
		if id == "" {
			continue
		}
		key := usageKey(k.prefix, id)
		u, err := decodeUsage(t.get(bucketUsage, key))
		if err != nil {
			return fmt.Errorf("usage of %q: %w", id, err)
		}
		u.Refs += n
		u.Bytes += n * size
		if u.Refs == 0 {
			t.delete(bucketUsage, key)
			continue
		}
		row, err := encode(&u)
		if err != nil {
			return err
		}
		if err := t.put(bucketUsage, key, row); err != nil {
			return err
		}
	}
	return nil
}

// usage compares the usage rows with the lists that they sum up, one after the other.
// What other steps have found keeps it from telling.
func (a *audit) usage(r *rows) error {
	if len(a.findings) > 0 {
		return nil
	}
	for _, k := range usageKinds {
		var counted, listed int64
		for key, row := range r.from(bucketUsage, []byte{k.prefix}) {
			if key[0] != k.prefix {
				break
			}
			kept, err := decodeUsage(row)
			if err != nil {
				a.report(storage.Finding{Kind: storage.FindingIndex, Detail: fmt.Sprintf("usage %x: %v", key, err)})
				return nil
			}
			sum, err := a.add(r, k.list, key[1:])
			if err != nil {
				return err
			}
			counted += sum.Refs
			if sum != kept {
				a.report(storage.Finding{Kind: storage.FindingCounter,
					Detail: fmt.Sprintf("usage %x of %s is %+v, its references add up to %+v", key, k.list, kept, sum)})
			}
		}
		for range r.from(k.list, nil) {
			listed++
		}
		if counted != listed {
			a.report(storage.Finding{Kind: storage.FindingCounter,
				Detail: fmt.Sprintf("usage rows count %d references of %s, it has %d", counted, k.list, listed)})
		}
	}
	return nil
}

// add adds up the references of one list of a bucket.
func (a *audit) add(r *rows, list bucket, prefix []byte) (sum usageRecord, err error) {
	for key := range r.after(list, prefix, storage.UUID{}, false) {
		if err := a.ctx.Err(); err != nil {
			return sum, err
		}
		id := storage.UUID(key[len(prefix):])
		_, blob, err := r.readPair(id, r.get(bucketRefs, id[:]))
		if err != nil {
			return sum, err
		}
		sum.Refs++
		sum.Bytes += blob.Size
	}
	return sum, nil
}
