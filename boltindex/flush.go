package boltindex

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// flushInterval is how long rows stay in the log alone at most, so that a store
// at rest needs no recovery. By then most rows of debt have come and gone, and
// never get to bbolt.
const flushInterval = 2 * time.Second

// flusher moves rows from the log to bbolt in the background.
type flusher struct {
	some chan struct{} // of capacity 1: the log has rows
	full chan struct{} // of capacity 1: a segment is full
	quit chan struct{}
	gone chan struct{}
}

func (x *Index) startFlusher() {
	x.flusher = flusher{
		some: make(chan struct{}, 1), full: make(chan struct{}, 1), quit: make(chan struct{}), gone: make(chan struct{}),
	}
	if len(x.layers()) > 0 {
		notify(x.flusher.some)
	}
	go x.runFlusher()
}

func (x *Index) runFlusher() {
	f := &x.flusher
	defer close(f.gone)
	for {
		select {
		case <-f.some:
		case <-f.quit:
			return
		}
		select {
		case <-time.After(flushInterval):
		case <-f.full:
		case <-f.quit:
			return
		}
		if err := x.flush(); err != nil {
			x.log.Warn("rows stay in the log for now", "index", x.path, "error", err)
		}
		x.compactIfWorth()
		x.layersMu.RLock()
		if len(x.layers()) > 0 {
			notify(f.some)
		}
		x.layersMu.RUnlock()
	}
}

func (x *Index) stopFlusher() {
	close(x.flusher.quit)
	<-x.flusher.gone
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// layers are the rows that the log has, the newest first. The caller holds
// layersMu.
func (x *Index) layers() []*table {
	var list []*table
	for _, t := range [...]*table{x.active, x.frozen} {
		if t != nil && t.Len() > 0 {
			list = append(list, t)
		}
	}
	return list
}

// install puts the rows of a group in front of the readers. The caller holds
// writing.
func (x *Index) install(changes *table) {
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	if x.kept.Swap(false) {
		x.active = x.active.Copy()
	}
	changes.Scan(func(key string, value []byte) bool {
		x.active.Set(key, value)
		return true
	})
	notify(x.flusher.some)
}

// freeze hands the rows of the active segment to the next flush, if those of
// the other one are in bbolt, and says whether it did. The caller holds writing.
func (x *Index) freeze() bool {
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	if x.frozen != nil || x.active.Len() == 0 {
		return false
	}
	x.frozen, x.frozenTo = x.active, x.changes.number
	x.active = newTable()
	x.changes.turn()
	return true
}

// flush moves the rows of a segment to bbolt: the frozen one, or else the active
// one, frozen first.
func (x *Index) flush() error {
	x.writing.Lock()
	x.freeze()
	x.writing.Unlock()
	return x.flushFrozen(false)
}

// flushFrozen moves the frozen rows to bbolt. On a full disk it goes on record
// by record, each a transaction of a few pages, and may give up the reserve.
func (x *Index) flushFrozen(mayRelease bool) error {
	x.flushing.Lock()
	defer x.flushing.Unlock()
	x.layersMu.RLock()
	rows, to := x.frozen, x.frozenTo
	x.layersMu.RUnlock()
	if rows == nil {
		return nil
	}
	begun := time.Now()
	if err := x.unshare(); err != nil {
		return err
	}
	defer x.share()
	err := x.transfer(rows, to)
	if isFull(err) {
		err = x.flushRecords()
	}
	if isFull(err) && mayRelease && x.releaseReserve() {
		err = x.flushRecords()
	}
	if err != nil {
		return err
	}
	x.log.Debug("moved rows from the log to bbolt", "index", x.path, "rows", rows.Len(), "took", time.Since(begun))
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	x.frozen = nil
	x.following.tell(rows, to)
	return nil
}

func isFull(err error) bool { return errors.Is(storage.Classify(err), storage.ErrDiskSpace) }

// flushRecords moves the frozen rows to bbolt one record at a time. The caller
// holds flushing.
func (x *Index) flushRecords() error {
	applied, err := x.applied()
	if err != nil {
		return err
	}
	list, err := x.changes.records(x.changes.segments[1-x.changes.active], applied)
	if err != nil {
		return err
	}
	for _, r := range list {
		rows := newTable()
		if err := decodeTable(r.body, rows); err != nil {
			return err
		}
		if err := x.transfer(rows, r.number); err != nil {
			return err
		}
	}
	return nil
}

// How full pages are left when they are split. The keys of references come in
// order of time, so that a split page gets no more rows. The lists of IDs grow at
// the end of each ID: an index of 300,000 references in 100 to 10,000 lists of a
// kind took 259 bytes for each in the lists at bbolt's half, 236 at 0.7, and more
// again beyond. Blobs come everywhere, and their pages grow when they are left fuller.
const (
	refsFill  = 0.95
	listsFill = 0.7
)

func fillPercent(b bucket) float64 {
	switch b {
	case bucketRefs:
		return refsFill
	case bucketBySession, bucketByConversation, bucketByRun, bucketByUser:
		return listsFill
	}
	return bolt.DefaultFillPercent
}

// transfer writes rows to bbolt, and that it has those of the log up to a
// number.
func (x *Index) transfer(changes *table, to uint64) error {
	return x.bolt.transfer(changes, to, x.update)
}

// flushLeaves bounds the leaves of bbolt's trees that one transaction changes: it
// has each in memory, taken apart and as a page again, until it has ended. 60,000
// references more in an index of 300,000 took 190 MiB of live heap without a bound
// (7,538 a second), 58 with 2,048 (6,653), 39 with 512 (6,323), beside other work.
const flushLeaves = 1024

// transfer is that of Index, with its update or that of the file itself. Where it
// takes several transactions, all but the last leave the number as it was: rows are
// what they were once the log has been read on from there, whichever of them are
// here already.
func (f *boltFile) transfer(changes *table, to uint64, update func(func(*bolt.Tx) error) error) (err error) {
	from, more := "", true
	for more && err == nil {
		from, more, err = f.transferSome(changes, from, to, update)
	}
	return err
}

// transferSome writes rows from a key on, as many as one transaction takes. If there
// are more it answers with what key those begin, and leaves the number as it was.
func (f *boltFile) transferSome(changes *table, from string, to uint64, update func(func(*bolt.Tx) error) error) (next string, more bool, err error) {
	// The transaction before must have its sums, or they would be lost.
	if err := f.sum(); err != nil {
		return "", false, err
	}
	if err := checkFree(f.file, f.pages); err != nil {
		return "", false, err
	}
	f.pages.sums.expect()
	err = update(func(tx *bolt.Tx) (err error) {
		s, err := f.state(tx)
		if err == nil {
			next, more, err = s.checkPaths(changes, from, f.leaves)
		}
		if err != nil {
			return err
		}
		some := func(yield func(string, []byte) bool) {
			changes.Ascend(from, func(key string, value []byte) bool {
				return (!more || key < next) && yield(key, value)
			})
		}
		if err := putRows(tx, some, fillPercent); err != nil || more {
			return err
		}
		return tx.Bucket(bucketMeta.name()).Put(keyApplied, binary.BigEndian.AppendUint64(nil, to))
	})
	// Readers may see the transaction even where it failed: at its last sync.
	if err := f.sum(); err != nil {
		f.log.Warn("pages of the index have no sums for now", "index", f.path, "error", err)
	}
	return next, more, err
}

// putRows changes rows in a transaction, which come in order.
func putRows(tx *bolt.Tx, changes iter.Seq2[string, []byte], fill func(bucket) float64) (err error) {
	var in bucket
	var b *bolt.Bucket
	var k []byte // bbolt copies keys
	changes(func(key string, value []byte) bool {
		if b == nil || bucket(key[0]) != in {
			in = bucket(key[0])
			b = tx.Bucket(in.name())
			b.FillPercent = fill(in)
		}
		k = append(k[:0], key[1:]...)
		if value == nil {
			err = b.Delete(k)
		} else {
			err = b.Put(k, value)
		}
		if err != nil {
			err = fmt.Errorf("row %s %x: %w", in, k, err)
		}
		return err == nil
	})
	return err
}

// applied is the number of the last record whose rows bbolt has.
func (x *Index) applied() (number uint64, err error) {
	err = x.viewBolt(func(s *state) error {
		v, err := s.get(bucketMeta, keyApplied)
		if len(v) == 8 {
			number = binary.BigEndian.Uint64(v)
		}
		return err
	})
	return number, err
}

// update runs fn in a write transaction of bbolt.
func (x *Index) update(fn func(*bolt.Tx) error) error {
	if err := x.brokenBy(); err != nil {
		return err
	}
	id := 0
	err := x.bolt.update(func(tx *bolt.Tx) error { id = tx.ID(); return fn(tx) })
	if x.bolt.stuck.Load() {
		x.breakBy(err)
		return err
	}
	if err != nil {
		return x.judge(id, err)
	}
	return nil
}

// judge decides after a failed transaction whether bbolt may go on. A failure
// before the meta page leaves the old state, whole. When the meta page is in the
// file but its sync failed, memory and disk may disagree: no further change is
// accepted until the store is reopened, which reads the log anew.
func (x *Index) judge(id int, cause error) error {
	if now, err := x.bolt.lastID(); err == nil && now < id {
		return cause
	}
	x.breakBy(cause)
	return cause
}

// run is the records of one segment that bbolt does not have.
type run struct {
	segment int
	records []logRecord
}

// unapplied reads the records that bbolt does not have, the older segment first,
// and the number after which they come.
func (x *Index) unapplied() (runs []run, applied uint64, err error) {
	if applied, err = x.applied(); err != nil {
		return nil, 0, err
	}
	runs, err = x.changes.unapplied(applied)
	return runs, applied, err
}

// unapplied reads the records after a number, the older segment first.
func (l *changeLog) unapplied(applied uint64) (runs []run, err error) {
	for i, s := range l.segments {
		records, err := l.records(s, applied)
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			runs = append(runs, run{i, records})
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.records[0].number, b.records[0].number) })
	next := applied + 1
	for _, r := range runs {
		if first := r.records[0].number; first != next {
			return nil, fmt.Errorf("%w: log %s goes on with record %d, record %d is missing",
				storage.ErrCorrupted, logNames[r.segment], first, next)
		}
		next += uint64(len(r.records))
	}
	return runs, nil
}

// replay takes in what an earlier process has left in the log.
func (x *Index) replay() error {
	runs, applied, err := x.unapplied()
	if err != nil {
		return err
	}
	if x.bolt.pages.sums.behind && len(runs) == 0 {
		return fmt.Errorf("%w: the last meta page of %s is damaged, and the log does not have its rows",
			storage.ErrCorrupted, fileName)
	}
	x.changes.number = applied
	for _, run := range runs {
		x.frozen, x.frozenTo = x.active, x.changes.number
		x.active, x.changes.active = newTable(), run.segment
		for _, r := range run.records {
			if err := decodeTable(r.body, x.active); err != nil {
				return fmt.Errorf("log %s: record %d: %w", logNames[run.segment], r.number, err)
			}
			x.changes.number = r.number
			x.changes.segments[run.segment].end = r.end
		}
	}
	if len(runs) < 2 {
		x.frozen = nil
	}
	return x.syncFound(runs)
}

// syncFound makes durable what this opening builds on: a killed process may
// have left it in the kernel's memory alone, and so may a sync that failed. After
// one the kernel takes the bytes for written, so that a further sync does
// nothing about them; the ones that can have been the last to be synced, a meta
// page, the name of its sums and the last record of a segment, are therefore
// written again. The name of the file may be that of a compaction.
func (x *Index) syncFound(runs []run) error {
	now, _, err := readMetas(x.bolt.file)
	if err == nil && x.bolt.pages.sums.written >= now.txid {
		err = x.bolt.pages.sums.name(now.txid)
	}
	if x.changes.noSync || err != nil {
		return err
	}
	err = renew(x.bolt.file, int64(now.txid%2)*now.pageSize, now.pageSize)
	for _, run := range runs {
		last := run.records[len(run.records)-1]
		length := wholeBlocks(logHeader + len(last.body))
		err = errors.Join(err, renew(x.changes.segments[run.segment].file, last.end-length, length))
	}
	if err != nil {
		return err
	}
	err = errors.Join(datasync(x.bolt.file), x.syncDir())
	for _, s := range x.changes.segments {
		err = errors.Join(err, x.changes.sync(s))
	}
	return err
}

// renew writes again what a file has at an offset.
func renew(f *os.File, at, length int64) error {
	data := make([]byte, length)
	if _, err := f.ReadAt(data, at); err != nil {
		return err
	}
	_, err := f.WriteAt(data, at)
	return err
}
