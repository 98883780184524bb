package boltindex

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// op is one change that waits for a transaction. do may run more than once,
// each time in a transaction of which nothing else came of the earlier runs;
// it checks before it changes, so that an error of its own leaves nothing.
type op struct {
	do      func(*txn) error // nil: only waits for the transactions before it
	shrinks bool             // ends rows: worth giving up the reserve for
	staged  storage.BlobKey  // to be made durable before; empty if nothing is
	err     error            // what came of it
}

// commit runs an op in a transaction together with whoever waits, and returns
// when that is durable. An error of ctx means that nothing was done.
func (x *Index) commit(ctx context.Context, o *op) error {
	if err := x.commits.do(ctx, o); err != nil {
		return err
	}
	if o.err != nil {
		return fmt.Errorf("index %s: %w", x.path, storage.Classify(o.err))
	}
	return nil
}

// apply commits a group. When the disk is full it gives up the reserve and
// commits the shrinking operations one by one, each a transaction of a few
// pages.
func (x *Index) apply(ops []*op) {
	ops = slices.DeleteFunc(x.syncStaged(ops), func(o *op) bool {
		if o.do == nil {
			o.err = x.brokenBy()
		}
		return o.do == nil
	})
	if len(ops) == 0 {
		return
	}
	err := x.update(func(t *txn) error { return runAll(t, ops) })
	if err == nil {
		return
	}
	full := errors.Is(storage.Classify(err), storage.ErrDiskSpace)
	released := false
	for _, o := range ops {
		o.err = err
		if full && o.shrinks {
			released = released || x.releaseReserve()
			if err := x.update(func(t *txn) error { return runAll(t, []*op{o}) }); err != nil {
				o.err = err
			}
		}
	}
}

// syncStaged makes the staged bytes of a group durable, and returns the
// operations that may go on.
func (x *Index) syncStaged(ops []*op) []*op {
	var keys []storage.BlobKey
	for _, o := range ops {
		if o.staged != "" {
			keys = append(keys, o.staged)
		}
	}
	if len(keys) == 0 || x.sync == nil {
		return ops
	}
	err := x.sync(keys)
	if err == nil {
		return ops
	}
	rest := make([]*op, 0, len(ops))
	for _, o := range ops {
		if o.staged != "" {
			o.err = err
		} else {
			rest = append(rest, o)
		}
	}
	return rest
}

// runAll runs every op and keeps each one's own error; the error it returns
// fails the whole transaction.
func runAll(t *txn, ops []*op) error {
	for _, o := range ops {
		o.err = o.do(t)
		var fatal *txnError
		if errors.As(o.err, &fatal) {
			return fatal.err
		}
	}
	return nil
}

// txnError is an error of bbolt inside an op: the transaction is not to be
// committed.
type txnError struct{ err error }

func (e *txnError) Error() string { return e.err.Error() }
func (e *txnError) Unwrap() error { return e.err }

// update runs fn in a write transaction of its own.
func (x *Index) update(fn func(*txn) error) (err error) {
	if err := x.brokenBy(); err != nil {
		return err
	}
	var id int
	err = x.updateBolt(func(tx *bolt.Tx) error {
		id = tx.ID()
		t := &txn{tx: tx}
		if err := fn(t); err != nil {
			return err
		}
		if err := x.applyTouches(t); err != nil {
			return err
		}
		return t.finish()
	})
	if err != nil {
		return x.judge(id, err)
	}
	return nil
}

// brokenBy is why no change is accepted any more, nil as long as they are.
func (x *Index) brokenBy() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.broken
}

func (x *Index) updateBolt(fn func(*bolt.Tx) error) (err error) {
	defer guard(&err)
	defer faultsPanic()()
	return x.db.Update(fn)
}

// judge decides after a failed transaction whether the index may go on. A
// failure before the meta page leaves the old state, whole. When the meta page
// is in the file but its sync failed, memory and disk may disagree: the change
// is in doubt, and no further one is accepted until the store is reopened.
func (x *Index) judge(id int, cause error) error {
	var now int
	err := x.view(func(tx *bolt.Tx) error { now = tx.ID(); return nil })
	if err == nil && now < id {
		return cause
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.broken = fmt.Errorf("%w: an earlier change is in doubt, reopen the store: %w", storage.ErrIO, cause)
	x.log.Error("index needs to be reopened", "index", x.path, "error", cause)
	return fmt.Errorf("%w: %w", storage.ErrInDoubt, cause)
}

// txn is a write transaction with the counters' changes so far.
type txn struct {
	tx    *bolt.Tx
	delta storage.Counters
}

func (t *txn) bucket(name []byte) *bolt.Bucket { return t.tx.Bucket(name) }

func (t *txn) put(bucket, key, value []byte) error {
	if err := t.bucket(bucket).Put(key, value); err != nil {
		return &txnError{fmt.Errorf("put %s %x: %w", bucket, key, err)}
	}
	return nil
}

func (t *txn) delete(bucket, key []byte) error {
	if err := t.bucket(bucket).Delete(key); err != nil {
		return &txnError{fmt.Errorf("delete %s %x: %w", bucket, key, err)}
	}
	return nil
}

func (t *txn) putBlob(b *storage.BlobRow) error {
	row, err := encodeBlob(b)
	if err != nil {
		return fmt.Errorf("blob %s: %w", b.Key, err)
	}
	return t.put(bucketBlobs, []byte(b.Key), row)
}

// finish writes what the operations add up to.
func (t *txn) finish() error {
	if t.delta == (storage.Counters{}) {
		return nil
	}
	c, err := readCounters(t.tx)
	if err != nil {
		return err
	}
	row, err := encode(&countersRecord{
		Refs: c.Refs + t.delta.Refs, Blobs: c.Blobs + t.delta.Blobs,
		LogicalBytes:  c.LogicalBytes + t.delta.LogicalBytes,
		PhysicalBytes: c.PhysicalBytes + t.delta.PhysicalBytes,
	})
	if err != nil {
		return err
	}
	return t.put(bucketMeta, keyCounters, row)
}

func readCounters(tx *bolt.Tx) (storage.Counters, error) {
	var r countersRecord
	if row := tx.Bucket(bucketMeta).Get(keyCounters); row != nil {
		if err := decode(row, &r); err != nil {
			return storage.Counters{}, fmt.Errorf("counters: %w", err)
		}
	}
	return storage.Counters(r), nil
}

// maxTouched bounds the times of access that wait for a transaction; they are
// coarse, so beyond it they are dropped.
const maxTouched = 8192

// Touch notes that a blob was read at a time. It is written with a later
// transaction, or at Close, and may be lost.
func (x *Index) Touch(key storage.BlobKey, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.touched) < maxTouched {
		x.touched[key] = at
	}
}

// applyTouches writes the times of access that wait. Those of a transaction
// that then fails are lost.
func (x *Index) applyTouches(t *txn) error {
	x.mu.Lock()
	touched := x.touched
	if len(touched) == 0 {
		x.mu.Unlock()
		return nil
	}
	x.touched = map[storage.BlobKey]time.Time{}
	x.mu.Unlock()
	for key, at := range touched {
		row := t.bucket(bucketBlobs).Get([]byte(key))
		if row == nil {
			continue
		}
		b, err := decodeBlob(key, row)
		if err != nil {
			x.log.Error("time of access is lost", "index", x.path, "error", err)
			continue
		}
		b.AccessedAt = at
		if err := t.putBlob(&b); err != nil {
			return err
		}
	}
	return nil
}
