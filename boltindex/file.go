package boltindex

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// boltFile is bbolt's file, open and locked, with the sums of its pages. A
// compaction puts another one in its place (compact.go).
type boltFile struct {
	path   string // of the index, for messages
	log    *slog.Logger
	db     *bolt.DB
	locked *os.File // that bbolt has open
	file   *os.File // the same file once more, to read its pages past bbolt
	pages  *pageFile
	last   atomic.Pointer[state] // that was read last
	users  atomic.Int64          // readings and checks, and the Index as long as this is its file
	ending *sync.WaitGroup       // of the Index: closings that nobody waits for but its own
	stuck  atomic.Bool           // bbolt may hold its locks for ever
	leaves int                   // flushLeaves, or that of a test
}

// openPast opens a file, that bbolt has open, once more and refuses one that is
// shorter than its meta page says: reading the missing pages through the map
// would fault.
func (x *Index) openPast(name string, db *bolt.DB, locked *os.File) (_ *boltFile, err error) {
	f := &boltFile{path: x.path, log: x.log, db: db, locked: locked, ending: &x.background.all, leaves: flushLeaves}
	f.users.Store(1)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.file, err = x.root.OpenFile(name, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	now, _, err := readMetas(f.file)
	if err != nil {
		return nil, err
	}
	want := int64(now.end) * now.pageSize
	info, err := f.file.Stat()
	if err == nil && info.Size() < want {
		err = fmt.Errorf("%w: index file of %d bytes, its meta page says %d",
			storage.ErrCorrupted, info.Size(), want)
	}
	return f, err
}

// letGo ends one use of a file, and closes it with the last.
func (f *boltFile) letGo() error {
	if f.users.Add(-1) > 0 {
		return nil
	}
	return f.close()
}

// letGoSoon is letGo that does not wait: to free a long file that a compaction has
// replaced takes the system up to a second, and who reads last would have to pay.
func (f *boltFile) letGoSoon() {
	if f.users.Add(-1) > 0 {
		return
	}
	f.ending.Go(func() {
		if err := f.close(); err != nil {
			f.log.Warn("the file of the index before a compaction", "index", f.path, "error", err)
		}
	})
}

// close closes a file that nobody reads any more.
func (f *boltFile) close() (err error) {
	if f.stuck.Load() {
		err = abandon(f.locked)
	} else {
		err = f.db.Close()
	}
	if f.pages != nil {
		err = errors.Join(err, f.pages.close(), f.pages.sums.file.Close())
	}
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

// update runs fn in a write transaction of bbolt. After a panic in the commit bbolt
// cannot be asked for its locks any more.
func (f *boltFile) update(fn func(*bolt.Tx) error) (err error) {
	ended := false
	defer func() {
		if !ended {
			f.stuck.Store(true)
		}
	}()
	defer guard(&err)
	defer faultsPanic()()
	err = f.db.Update(func(tx *bolt.Tx) (err error) {
		defer guard(&err)
		return fn(tx)
	})
	ended = true
	return fromBolt(err)
}

// lastID is the last transaction that bbolt knows of.
func (f *boltFile) lastID() (id int, err error) {
	defer guard(&err)
	defer faultsPanic()()
	tx, err := f.db.Begin(false)
	if err != nil {
		return 0, err
	}
	return tx.ID(), tx.Rollback()
}
