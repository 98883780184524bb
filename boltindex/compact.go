package boltindex

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// bbolt never makes its file shorter. A compaction copies the rows into a new one
// (copy.go) and puts that in its place, while reads and changes go on.
//
// Every file has a number, in the sequence of the root bucket in its meta pages: 0
// the first, others a random one. Sums name the number of their file, so that
// those of one file never judge another.
//
// # Crash safety
//
//	1. index.db.*.tmp is written and synced, index.sums.next too. Open removes
//	   both, as long as index.db has another number.
//	2. The new file gets the last rows that the old one got, in synced transactions,
//	   and then no flush runs. Whatever the log has for the old file it has for the new
//	   one: both name the same record as applied.
//	3. index.db.*.tmp is renamed to index.db, and the directory synced. A crash in
//	   between leaves one or the other; they have the same rows, and no segment of the
//	   log is used again before the sync but for one of whose records both have the
//	   rows. After step 1 index.sums.next is durable, so
//	   Open gives it its name where it finds the new file, whose number it has.
//	4. index.sums.next is renamed to index.sums.
//
// The two last transactions of the new file are both whole states of the index, so
// that one of its meta pages may be damaged as in any other file.
//
// bbolt's lock belongs to a file, not to its name. The new file is locked from before
// step 3 on. Whoever has opened the old one by its name before, and gets its lock
// after, finds that the name is another file's, and starts over (checkLocked).

// compactStep is a point of a compaction.
type compactStep string

const (
	stepBegun     compactStep = "begun"     // the new file is there, without rows
	stepCopied    compactStep = "copied"    // all rows, but not what has changed since
	stepSealed    compactStep = "sealed"    // synced, with sums
	stepFollowed  compactStep = "followed"  // all that has changed until a moment ago
	stepCommitted compactStep = "committed" // the last rows, with flushes kept out
	stepRenamed   compactStep = "renamed"
	stepDurable   compactStep = "durable" // the new name
	stepReplaced  compactStep = "replaced"
)

// reach is where tests look in.
func (x *Index) reach(step compactStep) {
	if x.passed != nil {
		x.passed(step)
	}
}

// Compact makes the file of the index as small as its rows allow, beside all other
// use, and overwrites what its log has of rows that it does not need any more: rows
// that were removed before it was called are in none of its files afterwards. With
// dry it only says what is to be gained and what room it needs. progress, if it is
// not nil, is told how far the copy has come, in bytes. After an error the index is as
// it was. Errors: ErrDiskSpace, naming how much is needed and free, ErrCorrupted where
// a page is damaged, errors.ErrUnsupported where an open file cannot be replaced, ErrIO,
// or ctx's.
func (x *Index) Compact(ctx context.Context, dry bool, progress func(done, total int64)) (c storage.Compaction, err error) {
	select {
	case x.compacting <- struct{}{}:
		defer func() { <-x.compacting }()
	case <-ctx.Done():
		return c, ctx.Err()
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	n := compaction{x: x, progress: progress}
	if err := n.run(ctx, dry); err != nil {
		return n.Compaction, fmt.Errorf("compact index %s: %w", x.path, storage.Classify(err))
	}
	return n.Compaction, nil
}

// compaction is a Compact under way.
type compaction struct {
	storage.Compaction
	x        *Index
	progress func(done, total int64)
	name     string    // of the new file, until it has its place
	file     *boltFile // the new one
	upTo     string    // table key of the last row that was copied
	applied  uint64    // number of the last record whose rows have been followed
	late     []flushed // guarded by layersMu
}

// flushed is rows that bbolt has got, and up to which record of the log.
type flushed struct {
	rows *table
	to   uint64
}

func (c *compaction) run(ctx context.Context, dry bool) (err error) {
	x := c.x
	if err := errors.Join(ctx.Err(), x.brokenBy()); err != nil {
		return err
	}
	if err := c.plan(); err != nil || dry {
		return err
	}
	if !canReplace {
		return fmt.Errorf("%w on %s: a file that is open cannot be replaced", errors.ErrUnsupported, runtime.GOOS)
	}
	if c.Room >= 0 && c.Room < c.Need {
		return fmt.Errorf("%w: it needs %d bytes and %d are free: make room first", storage.ErrDiskSpace, c.Need, c.Room)
	}
	begun := time.Now()
	for i := range logNames {
		if err := x.wipe(i); err != nil {
			return fmt.Errorf("log %s: %w", logNames[i], err)
		}
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.begin(); err != nil {
		return err
	}
	x.reach(stepBegun)
	for _, step := range [...]func(context.Context) error{c.copy, c.seal, c.follow, c.replace} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	c.Duration = time.Since(begun)
	x.log.Info("compacted the index", "index", x.path, "before", c.Before, "after", c.After, "took", c.Duration, "pause", c.Pause)
	return nil
}

// roomFor is what a copy of pages may take: it leaves pages less full than they can
// be, by a fifth at most (copiedFill), and has sums, and changes go on meanwhile.
func roomFor(pages int64) int64 { return pages + pages/4 + reserveSize }

// plan looks at how much there is to gain, and what it takes.
func (c *compaction) plan() (err error) {
	c.Before, c.Free, err = c.x.extent()
	if err == nil {
		c.After = c.Before - c.Free
		c.Need = roomFor(c.After)
		c.Room, err = roomIn(c.x.root)
	}
	return err
}

// extent is the size of bbolt's file, and how much of it is free pages, in bytes.
func (x *Index) extent() (size, free int64, err error) {
	x.flushing.Lock()
	defer x.flushing.Unlock()
	f := x.bolt
	if err := checkFree(f.file, f.pages); err != nil {
		return 0, 0, err
	}
	now, _, err := readMetas(f.file)
	if err != nil {
		return 0, 0, err
	}
	p, err := readPage(f.file, now, now.free)
	if err != nil {
		return 0, 0, err
	}
	list, err := freePages(p, now.end)
	return int64(now.end) * now.pageSize, int64(len(list)) * now.pageSize, err
}

// begin makes the new file, without rows, and has flushes tell of theirs.
func (c *compaction) begin() (err error) {
	x := c.x
	c.name = fileName + "." + uuid.NewString() + ".tmp"
	if c.file, err = x.emptyFile(c.name); err != nil {
		return err
	}
	x.flushing.Lock()
	defer x.flushing.Unlock()
	if c.applied, err = x.applied(); err != nil {
		return err
	}
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	x.following = c
	return nil
}

// emptyFile makes a file with all buckets, locked and not synced.
func (x *Index) emptyFile(name string) (*boltFile, error) {
	db, _, err := x.openBolt(name, true)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fromBolt(db.Update(createBuckets)), db.Close()); err != nil {
		return nil, err
	}
	if err := x.number(name); err != nil {
		return nil, err
	}
	db, locked, err := x.openBolt(name, true)
	if err != nil {
		return nil, err
	}
	return x.openPast(name, db, locked)
}

// number gives a file a number of its own, while nobody has it open.
func (x *Index) number(name string) error {
	f, err := x.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(setNumber(f, 1+rand.Uint64N(1<<63)), f.Close())
}

func createBuckets(tx *bolt.Tx) error {
	for _, name := range bucketNames {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// seal makes the new file durable, with sums.
func (c *compaction) seal(context.Context) error {
	x, f := c.x, c.file
	noSync := x.changes.noSync
	now, _, err := readMetas(f.file)
	if err != nil {
		return err
	}
	_ = x.root.Remove(nextSums) // that of an earlier one, if there is any; or making it anew fails
	sums, err := x.openSums(nextSums, now.number, noSync)
	if err != nil {
		return err
	}
	f.pages = newPageFile(f.file, now.pageSize, sums)
	f.db.NoSync = noSync
	if !noSync {
		if err := datasync(f.locked); err != nil {
			return err
		}
	}
	if err := f.sumAll(now); err != nil {
		return err
	}
	x.reach(stepSealed)
	return nil
}

// replace puts the new file in the place of the old one, with the last rows.
func (c *compaction) replace(ctx context.Context) error {
	if !c.x.changes.noSync {
		if err := c.x.syncDir(); err != nil { // the name of the sums
			return err
		}
	}
	old, err := c.swap(ctx)
	if old == nil {
		return err
	}
	// The system takes its time to free a long file, in which nobody is to wait.
	if err := old.letGo(); err != nil {
		c.x.log.Warn("the file of the index before its compaction", "index", c.x.path, "error", err)
	}
	return err
}

// swap is what a change may have to wait for: when the log is full meanwhile. It returns
// the old file, once that is not used for new readings any more.
func (c *compaction) swap(ctx context.Context) (old *boltFile, err error) {
	x := c.x
	if err := c.keepOut(ctx); err != nil {
		return nil, err
	}
	begun := time.Now()
	defer func() { x.flushing.Unlock(); c.Pause = time.Since(begun) }()
	if c.behind() {
		if err := c.catchUp(); err != nil {
			return nil, err
		}
	}
	x.reach(stepCommitted)
	if err := errors.Join(ctx.Err(), x.brokenBy()); err != nil {
		return nil, err
	}
	if err := x.unshare(); err != nil {
		return nil, err
	}
	defer x.share()
	if err := x.root.Rename(c.name, fileName); err != nil {
		return nil, err
	}
	x.reach(stepRenamed)
	old, err = c.settle()
	x.reach(stepReplaced)
	return old, err
}

// settle makes the new file the one that is used, which it is by its name, and returns
// the old one.
func (c *compaction) settle() (old *boltFile, err error) {
	x := c.x
	if !x.changes.noSync {
		if err = x.syncDir(); err != nil {
			// After a power cut the old file may be back, without the rows of flushes to come.
			x.breakBy(err)
		}
	}
	x.reach(stepDurable)
	if err := x.root.Rename(nextSums, sumsName); err != nil {
		x.log.Warn("the next opening gives the sums of pages their name", "index", x.path, "error", err)
	}
	x.layersMu.Lock()
	old = x.bolt
	x.bolt, x.following = c.file, nil
	x.layersMu.Unlock()
	c.file, c.name = nil, ""
	now, _, e := readMetas(x.bolt.file)
	c.After = int64(now.end) * now.pageSize
	return old, errors.Join(err, e)
}

// end removes what has not got its place.
func (c *compaction) end() error {
	x := c.x
	x.layersMu.Lock()
	x.following = nil
	x.layersMu.Unlock()
	if c.file != nil {
		if err := c.file.close(); err != nil {
			x.log.Warn("the copy of the index", "index", x.path, "error", err)
		}
	}
	if c.name == "" {
		return nil
	}
	err := x.root.Remove(c.name)
	if c.file != nil && c.file.pages != nil {
		err = errors.Join(err, x.root.Remove(nextSums))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was not made
	}
	return err
}
