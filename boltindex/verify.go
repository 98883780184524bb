package boltindex

import (
	"context"
	"errors"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// countPage bounds the blobs whose references are counted in one pass where something
// is wrong, and so the memory of Verify: about 25 MiB.
const countPage = 1 << 16

// maxFindings bounds what Verify reports of one kind of scan: past that the
// index is beyond telling row by row.
const maxFindings = 10000

// Verify checks the index against itself: the pages (bbolt's own check), every
// refcount against the reference rows, every list and every total. It reads
// the whole file. Errors: ErrCorrupted when even that is impossible, or ctx's.
func (x *Index) Verify(ctx context.Context) ([]storage.Finding, error) {
	a := &audit{ctx: ctx}
	err := x.checkPages()
	if err == nil {
		err = x.checkBolt(a)
	}
	if err == nil {
		err = x.checkLog()
	}
	if err != nil {
		a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
	}
	if len(a.findings) > 0 {
		return a.findings, ctx.Err() // rows of a damaged tree say nothing
	}
	err = x.view(func(r *rows) error {
		if err := a.mirrors(r); err != nil {
			return err
		}
		if whole, err := (&tally{ctx: ctx}).whole(r); whole || err != nil {
			return err
		}
		for _, step := range [...]func(*rows) error{a.blobs, a.refs, a.lists, a.totals, a.usage} {
			if err := step(r); err != nil {
				return err
			}
		}
		return nil
	})
	return a.findings, x.wrap(err)
}

// checkPages reads every page from the file and compares it with its sum.
func (x *Index) checkPages() (err error) {
	defer guard(&err)
	defer faultsPanic()()
	x.flushing.Lock() // meta page and transaction are to be of one state
	f := x.bolt
	now, _, err := readMetas(f.file)
	tx, e := f.db.Begin(false)
	if e == nil {
		f.users.Add(1)
	}
	x.flushing.Unlock()
	if e != nil {
		return errors.Join(err, e)
	}
	defer func() { err = errors.Join(err, tx.Rollback(), f.letGo()) }()
	if err != nil {
		return err
	}
	without := 0
	err = newPageWalk(f.file, now, func(p page) error {
		compared, err := f.pages.check(p, now.txid)
		if !compared {
			without++
		}
		return err
	}).run()
	if err == nil && without > 0 {
		err = fmt.Errorf("%w: %d pages have no sum in %s, and nothing else seems wrong: remove this file while the store is closed, the next opening makes it anew",
			storage.ErrCorrupted, without, sumsName)
	}
	return err
}

// checkBolt is bbolt's own check. It looks at the list of free pages too, which
// every commit changes, so it keeps writers out while it runs. checkPages must
// have found nothing: the check runs in a goroutine of its own, where a fault
// of the map cannot be caught.
func (x *Index) checkBolt(a *audit) (err error) {
	x.flushing.Lock()
	f := x.bolt
	f.users.Add(1)
	x.flushing.Unlock()
	defer func() { err = errors.Join(err, f.letGo()) }()
	if f.stuck.Load() {
		return x.brokenBy()
	}
	defer guard(&err)
	defer faultsPanic()()
	tx, err := f.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	for err := range tx.Check() {
		a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
	}
	return nil
}

// checkLog reads what the log has for bbolt.
func (x *Index) checkLog() error {
	x.writing.Lock() // a record that is being written is no damage
	defer x.writing.Unlock()
	x.flushing.Lock() // neither is one that bbolt gets meanwhile
	defer x.flushing.Unlock()
	_, _, err := x.unapplied()
	return err
}

// listBuckets are the lists that references are in.
var listBuckets = [...]bucket{bucketByDigest, bucketBySession, bucketByConversation, bucketByRun, bucketByUser, bucketByExpiry}

// audit is one run of Verify, in one read transaction. It looks row by row for what is
// wrong, once a tally has said that something is.
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
func (a *audit) blobs(r *rows) error {
	page := make(map[storage.BlobKey]storage.BlobRow)
	var first, last storage.BlobKey
	for k, v := range r.from(bucketBlobs, nil) {
		if len(page) == countPage {
			if err := a.count(r, page, first, last); err != nil {
				return err
			}
			clear(page)
		}
		last = storage.BlobKey(k)
		if len(page) == 0 {
			first = last
		}
		b, err := decodeBlob(last, v)
		if err != nil {
			a.report(storage.Finding{Kind: storage.FindingIndex, Blob: last.String(), Detail: err.Error()})
			continue
		}
		a.sum.Blobs++
		a.sum.PhysicalBytes += b.Size
		page[b.Key] = b
	}
	return a.count(r, page, first, last)
}

// count compares the refcounts of the blobs from first to last with the
// references that name them.
func (a *audit) count(r *rows, page map[storage.BlobKey]storage.BlobRow, first, last storage.BlobKey) error {
	counts := make(map[storage.BlobKey]int64)
	for k, v := range r.from(bucketRefs, nil) {
		if ref, err := decodeRef(storage.UUID(k), v); err == nil && ref.Blob >= first && ref.Blob <= last {
			counts[ref.Blob]++
		}
		if err := a.ctx.Err(); err != nil {
			return err
		}
	}
	for key, b := range page {
		if counts[key] != b.Refs {
			a.report(storage.Finding{Kind: storage.FindingRefcount, Path: b.Path, Blob: key.String(),
				Detail: fmt.Sprintf("refcount %d, but %d reference rows", b.Refs, counts[key])})
		}
	}
	return nil
}

// refs checks that every reference names a blob and is in its lists.
func (a *audit) refs(r *rows) error {
	for k, v := range r.from(bucketRefs, nil) {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		ref, blob, err := r.readPair(storage.UUID(k), v)
		if err != nil {
			a.report(storage.Finding{Kind: storage.FindingDangling, Ref: storage.UUID(k).String(), Detail: err.Error()})
			continue
		}
		a.sum.CountRef(&ref.Metadata, blob.Size, 1)
		for m := range memberships(blob.ListedDigest(ref.UUID), &ref) {
			a.members++
			if r.get(m.bucket, m.key(ref.UUID)) == nil {
				a.report(storage.Finding{Kind: storage.FindingDangling, Ref: ref.UUID.String(),
					Detail: fmt.Sprintf("reference is not in the list %s of %q", m.bucket, m.of)})
			}
		}
	}
	return nil
}

// lists checks that the lists hold nothing beyond what refs has seen in them.
func (a *audit) lists(r *rows) error {
	var entries int64
	for _, list := range listBuckets {
		for k := range r.from(list, nil) {
			if err := a.ctx.Err(); err != nil {
				return err
			}
			entries++
			var id storage.UUID
			copy(id[:], k[max(0, len(k)-len(id)):])
			if r.get(bucketRefs, id[:]) == nil {
				a.report(storage.Finding{Kind: storage.FindingDangling, Ref: id.String(),
					Detail: fmt.Sprintf("list %s has a reference that has no row", list)})
			}
		}
	}
	if entries != a.members {
		a.report(storage.Finding{Kind: storage.FindingDangling,
			Detail: fmt.Sprintf("lists have %d entries, the reference rows %d", entries, a.members)})
	}
	return nil
}

func (a *audit) mirrors(r *rows) error {
	for k, v := range r.from(bucketMirrors, nil) {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if _, err := storage.ParseMirror(k, storage.BlobKey(v)); err != nil {
			a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
		}
	}
	return nil
}

func (a *audit) totals(r *rows) error {
	kept, err := readCounters(r)
	if err == nil && kept != a.sum {
		a.report(storage.Finding{Kind: storage.FindingCounter, Detail: fmt.Sprintf("totals %+v, the rows add up to %+v", kept, a.sum)})
	}
	return err
}
