package boltindex

import (
	"context"
	"hash/maphash"

	"github.com/mediabolt/mediabolt/storage"
)

// tally compares the rows of an index with one another in one pass over each bucket
// and in constant memory. What one side has of a thing is added, what the other has
// is subtracted, each times a weight that the thing has by chance: 64 bits of a hash
// with a seed of this run. Where the sum is zero both sides have the same, but for a
// chance of about 2^-60. It does not tell what is wrong, which audit does, at the cost
// of a look into each list for each reference.
type tally struct {
	ctx  context.Context
	seed maphash.Seed
	hash maphash.Hash
	// blobs is refcounts less references, lists what the references are to be in less
	// what is, usage what they add up to less what is kept.
	blobs, lists, usage uint64
	sum                 storage.Counters
	faults              int // rows that cannot be read, or name none
}

// whole says whether the rows agree.
func (t *tally) whole(r *rows) (bool, error) {
	t.seed = maphash.MakeSeed()
	for _, step := range [...]func(*rows) error{t.addBlobs, t.addRefs, t.addLists, t.addUsage} {
		if err := step(r); err != nil {
			return false, err
		}
	}
	kept, err := readCounters(r)
	return t.faults == 0 && t.blobs == 0 && t.lists == 0 && t.usage == 0 && kept == t.sum, err
}

// weight is that of a key, of what the key is about in a bucket.
func (t *tally) weight(b bucket, about byte, key []byte) uint64 {
	t.hash.SetSeed(t.seed)
	_ = t.hash.WriteByte(byte(b)) // is documented to never fail
	_ = t.hash.WriteByte(about)
	_, _ = t.hash.Write(key)
	return t.hash.Sum64()
}

func (t *tally) addBlobs(r *rows) error {
	for k, v := range r.from(bucketBlobs, nil) {
		b, err := decodeBlob(storage.BlobKey(k), v)
		if err != nil {
			t.faults++
			continue
		}
		t.sum.Blobs++
		t.sum.PhysicalBytes += b.Size
		t.blobs += uint64(b.Refs) * t.weight(bucketBlobs, 0, k)
		if err := t.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) addRefs(r *rows) error {
	for k, v := range r.from(bucketRefs, nil) {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		ref, blob, err := r.readPair(storage.UUID(k), v)
		if err != nil {
			t.faults++
			continue
		}
		t.sum.CountRef(&ref.Metadata, blob.Size, 1)
		t.blobs -= t.weight(bucketBlobs, 0, []byte(ref.Blob))
		for m := range memberships(blob.ListedDigest(ref.UUID), &ref) {
			t.lists += t.weight(m.bucket, 0, m.key(ref.UUID))
		}
		for _, kind := range usageKinds {
			if id := kind.kind.Of(&ref.Metadata); id != "" {
				t.use(usageKey(kind.prefix, id), 1, blob.Size)
			}
		}
	}
	return nil
}

// use adds to what the row at a key is to be.
func (t *tally) use(key []byte, refs, bytes int64) {
	t.usage += uint64(refs)*t.weight(bucketUsage, 'r', key) + uint64(bytes)*t.weight(bucketUsage, 'b', key)
}

func (t *tally) addLists(r *rows) error {
	for _, list := range listBuckets {
		for k := range r.from(list, nil) {
			t.lists -= t.weight(list, 0, k)
			if err := t.ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tally) addUsage(r *rows) error {
	for k, v := range r.from(bucketUsage, nil) {
		u, err := decodeUsage(v)
		if err != nil {
			t.faults++
			continue
		}
		t.use(k, -u.Refs, -u.Bytes)
		if err := t.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
