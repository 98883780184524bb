package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// usageKinds are the kinds of ID whose use is kept, and what leads their keys.
var usageKinds = [...]struct {
	kind   storage.IDKind
	prefix byte
}{{storage.SessionIDs, 's'}, {storage.UserIDs, 'u'}}

// usagePrefix is what the keys of an ID's rows begin with. A byte follows it: the
// lane.
func usagePrefix(prefix byte, id string) []byte { return append(append([]byte{prefix}, id...), 0) }

// Usage is what the references of one session or user add up to; see engine.Index.
func (x *Index) Usage(ctx context.Context, kind storage.IDKind, id string) (storage.Usage, error) {
	for _, k := range usageKinds {
		if k.kind != kind {
			continue
		}
		var sum storage.Usage
		err := x.view(ctx, func(r Reader) (err error) {
			sum, err = usageOf(r, usagePrefix(k.prefix, id))
			return err
		})
		return sum, err
	}
	return storage.Usage{}, fmt.Errorf("%w: the use of IDs of kind %d is not kept", storage.ErrInvalidQuery, kind)
}

// usageOf is the sum of the rows of one ID.
func usageOf(r Reader, prefix []byte) (sum storage.Usage, err error) {
	for row, err := range r.From(Use, prefix) {
		if err != nil {
			return sum, err
		}
		if !bytes.HasPrefix(row.Key, prefix) {
			break
		}
		if len(row.Key) != len(prefix)+1 {
			continue // of a longer ID that begins with this one
		}
		part, err := decodeUsage(row.Value)
		if err != nil {
			return sum, err
		}
		sum.Refs += part.Refs
		sum.Bytes += part.Bytes
	}
	return sum, nil
}

func encodeUsage(u storage.Usage) []byte {
	return binary.AppendVarint(binary.AppendVarint([]byte{rowVersion}, u.Refs), u.Bytes)
}

func decodeUsage(row []byte) (storage.Usage, error) {
	f := fieldsOf(row)
	u := storage.Usage{Refs: f.number(), Bytes: f.number()}
	if f.bad || len(f.rest) > 0 {
		return u, fmt.Errorf("%w: usage %x", storage.ErrCorrupted, row)
	}
	return u, nil
}

// use counts n references like one with metadata m to a blob of a size, in the row of
// the transaction's lane.
func (c *change) use(m *storage.MediaMetadata, size, n int64) error {
	for _, k := range usageKinds {
		id := k.kind.Of(m)
		if id == "" {
			continue
		}
		key := append(usagePrefix(k.prefix, id), c.lane)
		var u storage.Usage
		row, found, err := c.Get(Use, key)
		if err == nil && found {
			u, err = decodeUsage(row)
		}
		if err != nil {
			return err
		}
		u.Refs += n
		u.Bytes += n * size
		if u == (storage.Usage{}) {
			err = c.Delete(Use, key)
		} else {
			err = c.Put(Use, key, encodeUsage(u))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
