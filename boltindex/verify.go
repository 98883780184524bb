package boltindex

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// countPage bounds the blobs whose references are counted in one pass, and so
// the memory of Verify: about 25 MiB.
const countPage = 1 << 16

// maxFindings bounds what Verify reports of one kind of scan: past that the
// index is beyond telling row by row.
const maxFindings = 10000

// Verify checks the index against itself: the pages (bbolt's own check), every
// refcount against the reference rows, every list and every total. It reads
// the whole file. Errors: ErrCorrupted when even that is impossible, or ctx's.
func (x *Index) Verify(ctx context.Context) ([]storage.Finding, error) {
	a := &audit{ctx: ctx}
	err := x.view(func(tx *bolt.Tx) error { return x.checkPages(tx) })
	if err == nil {
		err = x.checkBolt(a)
	}
	if err != nil {
		a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
	}
	if len(a.findings) > 0 {
		return a.findings, ctx.Err() // rows of a damaged tree say nothing
	}
	err = x.view(func(tx *bolt.Tx) error {
		for _, step := range [...]func(*bolt.Tx) error{a.blobs, a.refs, a.lists, a.mirrors, a.totals} {
			if err := step(tx); err != nil {
				return err
			}
		}
		return nil
	})
	return a.findings, x.wrap(err)
}

// checkBolt is bbolt's own check. It looks at the list of free pages too, which
// every commit changes, so it keeps writers out while it runs. checkPages must
// have found nothing: the check runs in a goroutine of its own, where a fault
// of the map cannot be caught.
func (x *Index) checkBolt(a *audit) (err error) {
	defer guard(&err)
	tx, err := x.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	for err := range tx.Check() {
		a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
	}
	return nil
}

// audit is one run of Verify, in one read transaction.
type audit struct {
	ctx      context.Context
	findings []storage.Finding
	sum      storage.Counters
	members  int64 // entries that the lists should have
}

func (a *audit) report(f storage.Finding) {
	f.Severity = storage.SeverityDamage
	if len(a.findings) < maxFindings {
		a.findings = append(a.findings, f)
	}
}

// blobs counts the references of every blob, a page of blobs at a time.
func (a *audit) blobs(tx *bolt.Tx) error {
	c := tx.Bucket(bucketBlobs).Cursor()
	k, v := c.First()
	for k != nil {
		rows := make(map[storage.BlobKey]storage.BlobRow)
		first, last := storage.BlobKey(k), storage.BlobKey(k)
		for ; k != nil && len(rows) < countPage; k, v = c.Next() {
			last = storage.BlobKey(k)
			b, err := decodeBlob(last, v)
			if err != nil {
				a.report(storage.Finding{Kind: storage.FindingIndex, Blob: last.String(), Detail: err.Error()})
				continue
			}
			a.sum.Blobs++
			a.sum.PhysicalBytes += b.Size
			rows[b.Key] = b
		}
		counts, err := a.count(tx, first, last)
		if err != nil {
			return err
		}
		for key, b := range rows {
			if counts[key] != b.Refs {
				a.report(storage.Finding{Kind: storage.FindingRefcount, Path: b.Path, Blob: key.String(),
					Detail: fmt.Sprintf("refcount %d, but %d reference rows", b.Refs, counts[key])})
			}
		}
	}
	return nil
}

// count is how many references name each blob from first to last.
func (a *audit) count(tx *bolt.Tx, first, last storage.BlobKey) (map[storage.BlobKey]int64, error) {
	counts := make(map[storage.BlobKey]int64)
	err := tx.Bucket(bucketRefs).ForEach(func(k, v []byte) error {
		if ref, err := decodeRef(storage.UUID(k), v); err == nil && ref.Blob >= first && ref.Blob <= last {
			counts[ref.Blob]++
		}
		return a.ctx.Err()
	})
	return counts, err
}

// refs checks that every reference names a blob and is in its lists.
func (a *audit) refs(tx *bolt.Tx) error {
	return tx.Bucket(bucketRefs).ForEach(func(k, v []byte) error {
		ref, blob, err := readPair(tx, storage.UUID(k), v)
		if err != nil {
			a.report(storage.Finding{Kind: storage.FindingDangling, Ref: storage.UUID(k).String(), Detail: err.Error()})
			return a.ctx.Err()
		}
		a.sum.Refs++
		a.sum.LogicalBytes += blob.Size
		for _, m := range memberships(&ref.Metadata) {
			if m.id == "" {
				continue
			}
			a.members++
			if tx.Bucket(m.bucket).Get(memberKey(m.id, ref.UUID)) == nil {
				a.report(storage.Finding{Kind: storage.FindingDangling, Ref: ref.UUID.String(),
					Detail: fmt.Sprintf("reference is not in the list %s of %q", m.bucket, m.id)})
			}
		}
		return a.ctx.Err()
	})
}

// lists checks that the lists hold nothing beyond what refs has seen in them.
func (a *audit) lists(tx *bolt.Tx) error {
	var entries int64
	for _, m := range memberships(&storage.MediaMetadata{}) {
		err := tx.Bucket(m.bucket).ForEach(func(k, _ []byte) error {
			entries++
			var id storage.UUID
			copy(id[:], k[max(0, len(k)-len(id)):])
			if tx.Bucket(bucketRefs).Get(id[:]) == nil {
				a.report(storage.Finding{Kind: storage.FindingDangling, Ref: id.String(),
					Detail: fmt.Sprintf("list %s has a reference that has no row", m.bucket)})
			}
			return a.ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	if entries != a.members {
		a.report(storage.Finding{Kind: storage.FindingDangling,
			Detail: fmt.Sprintf("lists of IDs have %d entries, the reference rows %d", entries, a.members)})
	}
	return nil
}

func (a *audit) mirrors(tx *bolt.Tx) error {
	return tx.Bucket(bucketMirrors).ForEach(func(k, v []byte) error {
		if _, err := decodeMirror(k, v); err != nil {
			a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
		}
		return a.ctx.Err()
	})
}

func (a *audit) totals(tx *bolt.Tx) error {
	kept, err := readCounters(tx)
	if err == nil && kept != a.sum {
		a.report(storage.Finding{Kind: storage.FindingCounter, Detail: fmt.Sprintf("totals %+v, the rows add up to %+v", kept, a.sum)})
	}
	return err
}
