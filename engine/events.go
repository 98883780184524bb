package engine

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Operation is a kind of call or step; its values are stable.
type Operation string

const (
	OpStore        Operation = "store"         // of new bytes; of a failed Store or StoreReader, any
	OpStorePresent Operation = "store_present" // of bytes that were there
	OpRetrieve     Operation = "retrieve"
	OpOpen         Operation = "open"
	OpRead         Operation = "read" // from a Blob that Open returned
	OpDelete       Operation = "delete"
	OpExpire       Operation = "expire"
	OpErase        Operation = "erase" // of one reference, by Erase
	OpVerify       Operation = "verify"
	OpCommit       Operation = "commit" // of a group
	OpCompact      Operation = "compact"
)

// Event is one thing that happened. What does not apply is zero.
type Event struct {
	Operation Operation
	Store     string        // base directory, absolute
	ID        string        // of the reference; empty where a failed call named none that can be
	Path      string        // of the blob, relative to the base directory, with forward slashes
	Bytes     int64         // size of the blob
	Duration  time.Duration // of the call

	Last       bool               // Deleted, Expired: the blob went too
	Finding    storage.Finding    // Damaged: what was found
	Commit     storage.Commit     // Committed: the group
	Compaction storage.Compaction // Compacted: what it has brought
	Limit      Limit              // Refused: by which limit; Bytes are those asked for
	Err        error              // Failed: what the caller was told, without the store's name
	Class      string             // Failed: storage.Class of Err
}

// EventListener is told of what a store has done, by the functions that are not
// nil. Each is called after the fact, in a goroutine of the call that it tells
// of, or of the store's own sweeps and compactions, and before that returns, while no lock is held and no transaction is open:
// it may use the store, but must not close it. Since it is waited for it must not
// take long, and it must be safe for concurrent use. Of a group of commits one of
// the calls that are under way tells. An event is not kept: when the process is
// killed between the end of a change and the telling, nobody hears of it.
type EventListener struct {
	Stored    func(Event) // bytes that were not there before
	Shared    func(Event) // a dedup hit: one more reference to bytes that were there
	Healed    func(Event) // bytes whose file was missing or cut short, and is back
	Retrieved func(Event) // content, by Retrieve
	Opened    func(Event) // a Blob
	Deleted   func(Event) // a reference; not one that was gone already, or whose count went down
	Expired   func(Event) // a reference that Expire, or the store itself, has ended
	Damaged   func(Event) // found by a read or by Verify
	Committed func(Event) // a group of changes; by the built-in index, others may not tell
	Compacted func(Event) // the index, by Compact or by itself
	Refused   func(Event) // a Store, by a quota or MinFreeBytes; Failed is told of it too
	Failed    func(Event) // a Store, Retrieve, Open or Delete, or an Expire as a whole
}

// TeeEvents returns a listener that passes every event to each of several, in
// order. Those that are nil are left out.
func TeeEvents(listeners ...*EventListener) *EventListener {
	var all EventListener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		all = EventListener{
			Stored: both(all.Stored, l.Stored), Shared: both(all.Shared, l.Shared), Healed: both(all.Healed, l.Healed),
			Retrieved: both(all.Retrieved, l.Retrieved), Opened: both(all.Opened, l.Opened), Deleted: both(all.Deleted, l.Deleted),
			Expired: both(all.Expired, l.Expired), Damaged: both(all.Damaged, l.Damaged), Committed: both(all.Committed, l.Committed),
			Compacted: both(all.Compacted, l.Compacted), Refused: both(all.Refused, l.Refused), Failed: both(all.Failed, l.Failed),
		}
	}
	return &all
}

func both(a, b func(Event)) func(Event) {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(e Event) { a(e); b(e) }
}

// observer is where an open store says what it has done: it keeps the latencies,
// and tells the listener. No lock is held while its methods are called, except
// for committed.
type observer struct {
	dir      string
	log      *slog.Logger
	listener EventListener

	store, storePresent, retrieve, open, delete, commit histogram

	healed atomic.Int64

	mu      sync.Mutex       // guards commits
	commits []storage.Commit // that the listener has not been told of
}

func newObserver(cfg *FileStoreConfig) *observer {
	o := &observer{dir: cfg.BaseDir, log: cfg.Logger}
	if cfg.EventListener != nil {
		o.listener = *cfg.EventListener
	}
	return o
}

func (o *observer) latencies() Latencies {
	return Latencies{
		Store: o.store.latency(), StorePresent: o.storePresent.latency(), Retrieve: o.retrieve.latency(),
		Open: o.open.latency(), Delete: o.delete.latency(), Commit: o.commit.latency(),
	}
}

// tell tells of a blob, if anybody listens.
func (o *observer) tell(told func(Event), op Operation, id storage.ID, blob *storage.BlobRow, took time.Duration, last bool) {
	if told != nil {
		told(Event{
			Operation: op, Store: o.dir, ID: id.String(), Path: blob.Path, Bytes: blob.Size, Duration: took, Last: last,
		})
	}
}

// failed tells of a call that ended with an error. ref is what it was about, nil
// for a Store.
func (o *observer) failed(op Operation, ref *storage.StorageReference, took time.Duration, err error) {
	if o.listener.Failed == nil {
		return
	}
	e := Event{Operation: op, Store: o.dir, Duration: took, Err: err, Class: storage.Class(err)}
	if id, err := parseRef(ref); err == nil {
		e.ID = id.String()
	}
	o.listener.Failed(e)
}

// refused tells of a Store that a limit of the configuration has ended.
func (o *observer) refused(took time.Duration, err error) {
	if o.listener.Refused == nil {
		return
	}
	if l := new(LimitError); errors.As(err, &l) {
		o.listener.Refused(Event{Operation: OpStore, Store: o.dir, Bytes: l.Asked, Duration: took, Limit: l.Limit})
	}
}

// stored is told of every Store. What was shared was not staged.
func (o *observer) stored(begun time.Time, id storage.ID, add *storage.Addition, blob *storage.BlobRow, err error) {
	took := time.Since(begun)
	switch {
	case err != nil:
		o.refused(took, err)
		o.failed(OpStore, nil, took, err)
	case !add.Staged:
		o.storePresent.observe(took)
		o.tell(o.listener.Shared, OpStorePresent, id, blob, took, false)
	case blob.Refs > 1: // others had it, and it was staged all the same
		o.store.observe(took)
		o.healed.Add(1)
		o.log.Warn("healed a blob whose file was missing or cut short", "store", o.dir, "path", blob.Path)
		o.tell(o.listener.Healed, OpStore, id, blob, took, false)
	default:
		o.store.observe(took)
		o.tell(o.listener.Stored, OpStore, id, blob, took, false)
	}
	o.tellCommits()
}

// retrieved is told of every Retrieve, opened of every Open; b is nil after an
// error.
func (o *observer) retrieved(begun time.Time, ref *storage.StorageReference, b *Blob, err error) {
	took := time.Since(begun)
	if err != nil {
		o.failed(OpRetrieve, ref, took, err)
		return
	}
	o.retrieve.observe(took)
	o.tell(o.listener.Retrieved, OpRetrieve, b.id, &b.row, took, false)
}

func (o *observer) opened(begun time.Time, ref *storage.StorageReference, b *Blob, err error) {
	took := time.Since(begun)
	if err != nil {
		o.failed(OpOpen, ref, took, err)
		return
	}
	o.open.observe(took)
	o.tell(o.listener.Opened, OpOpen, b.id, &b.row, took, false)
}

// deleted is told of every Delete.
func (o *observer) deleted(begun time.Time, ref *storage.StorageReference, id storage.ID, r *storage.Removal, err error) {
	took := time.Since(begun)
	if err != nil {
		o.failed(OpDelete, ref, took, err)
	} else {
		o.delete.observe(took)
	}
	if err == nil && r.Found && !r.Counted {
		o.tell(o.listener.Deleted, OpDelete, id, &r.Blob, took, r.Last)
	}
	o.tellCommits()
}

// erased is told of every reference that Erase has ended.
func (o *observer) erased(begun time.Time, id storage.ID, r *storage.Removal) {
	o.tell(o.listener.Deleted, OpErase, id, &r.Blob, time.Since(begun), r.Last)
}

// damageError is damage of a blob's file that a read has met.
type damageError struct {
	error
	kind storage.FindingKind
	blob storage.BlobRow
}

func (e *damageError) Unwrap() error { return e.error }

// unreadable is told of an error that ended a read of a reference, and tells of
// those that are damage.
func (o *observer) unreadable(op Operation, id storage.ID, err error) {
	if o.listener.Damaged == nil || !errors.Is(err, storage.ErrCorrupted) {
		return
	}
	f := storage.Finding{Kind: storage.FindingIndex, Severity: storage.SeverityDamage, Ref: id.UUID.String(), Detail: err.Error()}
	e := Event{Operation: op, Store: o.dir, ID: id.String()}
	if d := new(damageError); errors.As(err, &d) {
		f.Kind, f.Path, f.Blob = d.kind, d.blob.Path, d.blob.Key.String()
		e.Path, e.Bytes = d.blob.Path, d.blob.Size
	}
	e.Finding = f
	o.listener.Damaged(e)
}

// found is told of what Verify found.
func (o *observer) found(f *storage.Finding) {
	if o.listener.Damaged != nil && f.Severity == storage.SeverityDamage {
		o.listener.Damaged(Event{Operation: OpVerify, Store: o.dir, Path: f.Path, Finding: *f})
	}
}

// compacted is told of every compaction: by Compact, or by the index where that has
// begun it by itself.
func (o *observer) compacted(c storage.Compaction) {
	if o.listener.Compacted != nil {
		o.listener.Compacted(Event{Operation: OpCompact, Store: o.dir, Duration: c.Duration, Compaction: c})
	}
}

// committed is told by the index, in the middle of somebody's call. The listener
// hears of it at the end of that call.
func (o *observer) committed(c storage.Commit) {
	o.commit.observe(c.Duration)
	if o.listener.Committed == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commits = append(o.commits, c)
}

// tellCommits is called at the end of whatever commits.
func (o *observer) tellCommits() {
	if o.listener.Committed == nil {
		return
	}
	o.mu.Lock()
	commits := o.commits
	o.commits = nil
	o.mu.Unlock()
	for _, c := range commits {
		o.listener.Committed(Event{Operation: OpCommit, Store: o.dir, Duration: c.Duration, Commit: c})
	}
}
