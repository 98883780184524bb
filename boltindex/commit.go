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

// op is one change that waits for a commit. do may run more than once, each time
// after nothing came of the earlier runs; it checks before it changes, so that
// an error of its own leaves nothing.
type op struct {
	do      func(*txn) error // nil: only waits for the commits before it
	shrinks bool             // ends rows: worth giving up the reserve for
	staged  storage.BlobKey  // to be made durable before; empty if nothing is
	err     error            // what came of it
}

// commit runs an op together with whoever waits, and returns when that is
// durable. An error of ctx means that nothing was done.
func (x *Index) commit(ctx context.Context, o *op) error {
	if err := x.commits.do(ctx, o); err != nil {
		return err
	}
	if o.err != nil {
		return fmt.Errorf("index %s: %w", x.path, storage.Classify(o.err))
	}
	return nil
}

// applyTold is apply, and tells what was committed.
func (x *Index) applyTold(ops []*op) {
	if x.committed == nil {
		x.apply(ops)
		return
	}
	begun, written, group := time.Now(), x.changes.written, slices.Clone(ops)
	x.syncing = 0
	x.apply(ops)
	c := storage.Commit{Bytes: int64(x.changes.written - written), Sync: x.syncing, Duration: time.Since(begun)}
	if c.Bytes == 0 {
		return // nothing was to be changed, or could be
	}
	for _, o := range group {
		if o.do == nil || o.err != nil {
			continue
		}
		if c.Operations++; o.staged != "" {
			c.Staged++
		}
	}
	x.committed(c)
}

// apply commits a group. When the disk is full it commits the shrinking
// operations one by one, which may take up the reserve.
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
	err := x.change(false, func(t *txn) error { return runAll(t, ops) })
	for damage := (*opDamage)(nil); errors.As(err, &damage); {
		damage.op.err = damage.err
		ops = slices.DeleteFunc(ops, func(o *op) bool { return o == damage.op })
		err = x.change(false, func(t *txn) error { return runAll(t, ops) })
	}
	if err == nil {
		return
	}
	for _, o := range ops {
		o.err = err
		if isFull(err) && o.shrinks {
			if err := x.change(true, func(t *txn) error { return runAll(t, []*op{o}) }); err != nil {
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
	begun := time.Now()
	err := x.sync(keys)
	x.syncing = time.Since(begun)
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
// fails the whole group.
func runAll(t *txn, ops []*op) error {
	for _, o := range ops {
		o.err = o.do(t)
		if t.err != nil {
			return &opDamage{o, t.err}
		}
		var fatal *txnError
		if errors.As(o.err, &fatal) {
			return fatal.err
		}
	}
	return nil
}

// txnError is an error inside an op after which its group is not to be committed.
type txnError struct{ err error }

func (e *txnError) Error() string { return e.err.Error() }
func (e *txnError) Unwrap() error { return e.err }

// opDamage is what an op met that could not be read. Nothing that it did is of
// use, and those that came after it have read what it did.
type opDamage struct {
	op  *op
	err error
}

func (e *opDamage) Error() string { return e.err.Error() }
func (e *opDamage) Unwrap() error { return e.err }

// change commits what fn changes as one record of the log. An error means that
// there is no such record, except for ErrInDoubt.
func (x *Index) change(mayRelease bool, fn func(*txn) error) error {
	if err := x.brokenBy(); err != nil {
		return err
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	changes := newTable()
	err := x.look(false, func(r *rows) error {
		t := &txn{changes: changes, rows: rows{layers: append([]*table{changes}, r.layers...), state: r.state}}
		if err := fn(t); err != nil {
			return err
		}
		if err := x.applyTouches(t); err != nil {
			return err
		}
		if err := t.finish(); err != nil {
			return err
		}
		return t.err
	})
	if err != nil || changes.Len() == 0 {
		return err
	}
	// The view is over: while one is open, bbolt may be unable to commit.
	record := x.changes.record(changes)
	if err := x.makeRoom(len(record), mayRelease); err != nil {
		return err
	}
	if err := x.changes.append(record); err != nil {
		if errors.Is(err, storage.ErrInDoubt) {
			x.breakBy(err)
		}
		return err
	}
	x.install(changes)
	return nil
}

// makeRoom sees to it that a record fits into the active segment. It waits for who
// holds flushing only where the other segment has rows that bbolt does not have
// yet. The caller holds writing.
func (x *Index) makeRoom(record int, mayRelease bool) error {
	fits, err := x.changes.fits(record)
	if fits || err != nil {
		return err
	}
	if !x.freeze() {
		if err := x.flushFrozen(mayRelease); err != nil {
			return err
		}
		x.freeze()
	}
	notify(x.flusher.full)
	if fits, err = x.changes.fits(record); err == nil && !fits {
		err = fmt.Errorf("%w: no room for a record of %d bytes in the log", storage.ErrDiskSpace, record)
	}
	return err
}

// breakBy refuses every further change.
func (x *Index) breakBy(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken == nil {
		x.broken = fmt.Errorf("%w: an earlier change is in doubt, reopen the store: %w", storage.ErrIO, cause)
		x.log.Error("index needs to be reopened", "index", x.path, "error", cause)
	}
}

// brokenBy is why no change is accepted any more, nil as long as they are.
func (x *Index) brokenBy() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.broken
}

// txn is a view with the changes of a group above it, and the counters' changes
// so far.
type txn struct {
	rows
	changes *table
	delta   storage.Counters
}

func (t *txn) put(b bucket, key, value []byte) error {
	if len(key) == 0 || len(key) > bolt.MaxKeySize {
		return &txnError{fmt.Errorf("key of %d bytes in %s, at most %d", len(key), b, bolt.MaxKeySize)}
	}
	if value == nil {
		value = []byte{} // nil is a row that is gone
	}
	t.changes.Set(tableKey(b, key), value)
	return nil
}

func (t *txn) delete(b bucket, key []byte) { t.changes.Set(tableKey(b, key), nil) }

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
	c, err := readCounters(&t.rows)
	if err != nil {
		return err
	}
	total := countersRecord(c.Plus(t.delta))
	row, err := encode(&total)
	if err != nil {
		return err
	}
	return t.put(bucketMeta, keyCounters, row)
}

func readCounters(view *rows) (storage.Counters, error) {
	var r countersRecord
	if row := view.get(bucketMeta, keyCounters); row != nil {
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
		row := t.get(bucketBlobs, []byte(key))
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
