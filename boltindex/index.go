package boltindex

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/mediabolt/mediabolt/storage"
)

// Config says where and how an index is kept. Only Root is required.
type Config struct {
	// Root is the directory of the index. The index keeps it open, and does
	// not close it.
	Root *os.Root
	// Create allows a new index to be made where there is none.
	Create bool
	// Organization is recorded as the store's mode. Empty: the recorded one
	// stays, in a new index by-session.
	Organization storage.OrganizationMode
	// NoSync leaves out every sync: the index then survives a killed process
	// but not a power cut.
	NoSync bool
	// LockTimeout is how long Open waits for another process to let go. Zero:
	// one attempt.
	LockTimeout time.Duration
	// FileMode of new files. Zero: 0600.
	FileMode fs.FileMode
	// CompactAt is from how many bytes of free pages on the file is compacted by
	// itself, if they are more than half of it. Zero: DefaultCompactAt. Negative:
	// never.
	CompactAt int64
	// Sync is called before the commit of a group, with the keys of all
	// its additions that are staged, and makes their bytes durable. When it
	// fails, none of these additions is made. Nil: nothing is called.
	Sync func(keys []storage.BlobKey) error
	// Committed is told of every group that was committed, before its callers
	// are, and before the next group: it returns at once and does not call the
	// index. Nil: nobody is told.
	Committed func(storage.Commit)
	// Compacted is told of every compaction that nobody has asked for, with no lock
	// held: it may use the index, but not close it. Nil: nobody is told.
	Compacted func(storage.Compaction)
	// Logger gets what no caller waits for. Nil: nothing is logged.
	Logger *slog.Logger
}

// maxGroup bounds the operations of one commit, and so the length of a record.
const maxGroup = 512

// lockRetry is the pause between two attempts to take the lock.
const lockRetry = 10 * time.Millisecond

// Index is an open index. It is safe for concurrent use.
type Index struct {
	bolt         *boltFile // another one only while flushing and layersMu are held
	root         *os.Root
	path         string // for messages
	mode         fs.FileMode
	log          *slog.Logger
	sync         func(keys []storage.BlobKey) error
	committed    func(storage.Commit)
	compacted    func(storage.Compaction)
	storeID      uuid.UUID
	organization storage.OrganizationMode
	commits      *group[*op]
	syncing      time.Duration // of the Sync of the group that is being applied
	flusher      flusher
	background   background
	compacting   chan struct{}     // of capacity 1; full while there is a compaction
	batch        int               // batchBytes, or that of a test
	passed       func(compactStep) // nil, or that of a test

	// Locks are taken in this order: writing, flushing, layersMu, mu.
	writing sync.Mutex // held while a record is made; guards changes
	changes *changeLog
	// flushing is held while bbolt is written. The frozen segment and the log's
	// idea of which one that is do not change meanwhile.
	flushing  sync.Mutex
	layersMu  sync.RWMutex // guards the next five; bolt with flushing
	active    *table       // rows of the active segment
	frozen    *table       // rows of the other one that bbolt does not have yet, or nil
	frozenTo  uint64       // number of the last record of frozen
	following *compaction  // is told of what bbolt gets, or nil
	shared    *reading     // of all views, nil while a flush is under way

	kept atomic.Bool // a view has active: it is copied before it is changed

	mu      sync.Mutex // guards the rest
	touched map[storage.BlobKey]time.Time
	broken  error // why no further change is accepted
}

// Open opens the index in cfg.Root, or makes one when cfg.Create allows it.
// Errors: ErrNoStore, ErrLocked, ErrVersion, ErrCorrupted, ErrPermission,
// ErrDiskSpace, ErrIO, or ctx's.
func Open(ctx context.Context, cfg Config) (*Index, error) {
	x := &Index{
		root: cfg.Root, path: filepath.Join(cfg.Root.Name(), fileName), mode: cfg.FileMode, log: cfg.Logger,
		sync: cfg.Sync, committed: cfg.Committed, compacted: cfg.Compacted, touched: map[storage.BlobKey]time.Time{}, active: newTable(),
		compacting: make(chan struct{}, 1), batch: batchBytes,
	}
	if x.mode == 0 {
		x.mode = 0o600
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.commits = newGroup(maxGroup, x.applyTold)
	if err := x.open(ctx, &cfg); err != nil {
		return nil, fmt.Errorf("open index %s: %w", x.path, storage.Classify(err))
	}
	return x, nil
}

func (x *Index) open(ctx context.Context, cfg *Config) error {
	if _, err := x.root.Lstat(fileName); errors.Is(err, fs.ErrNotExist) {
		if !cfg.Create {
			return storage.ErrNoStore
		}
		if err := x.create(); err != nil {
			return fmt.Errorf("create: %w", err)
		}
	} else if err != nil {
		return err
	}
	if err := x.lock(ctx, cfg); err != nil {
		return err
	}
	if err := x.begin(cfg); err != nil {
		return errors.Join(err, x.closeFiles())
	}
	x.removeTemporary()
	x.refillReserve()
	x.share()
	x.startBackground(cfg.CompactAt)
	x.startFlusher()
	return nil
}

// lock opens the file, waiting for its lock until the timeout or ctx ends.
func (x *Index) lock(ctx context.Context, cfg *Config) error {
	deadline := time.Now().Add(cfg.LockTimeout)
	for {
		db, file, err := x.openBolt(fileName, cfg.NoSync)
		if err == nil {
			x.bolt, err = x.openPast(fileName, db, file)
			return err
		}
		if errors.Is(err, errReplaced) {
			continue // at once: the lock of the new one is held by who made it
		}
		if !errors.Is(err, berrors.ErrTimeout) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: another process has it open (waited %s)", storage.ErrLocked, cfg.LockTimeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockRetry):
		}
	}
}

// openBolt opens one bbolt file of the directory, with a single attempt at its
// lock. Whatever bbolt says of a file that is not whole becomes ErrCorrupted.
func (x *Index) openBolt(name string, noSync bool) (db *bolt.DB, file *os.File, err error) {
	defer func() {
		if err != nil && file != nil {
			_ = abandon(file) // bbolt has closed it, unless it panicked
		}
	}()
	defer guard(&err)
	defer faultsPanic()()
	db, err = bolt.Open(name, x.mode, &bolt.Options{
		Timeout:         1, // less than bbolt's own pause: one attempt
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: initialMmapSize(),
		NoSync:          noSync,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, mode fs.FileMode) (_ *os.File, err error) {
			if file, err = x.root.OpenFile(name, flag, mode); err != nil {
				return nil, err
			}
			if tryLock(file) {
				err = x.checkLocked(name, file)
			} else if canReplace {
				err = berrors.ErrTimeout // bbolt's attempt might have success, and no check
			}
			return file, err // which bbolt closes where there is an error
		},
	})
	var errno syscall.Errno
	if err != nil && !errors.Is(err, berrors.ErrTimeout) && !errors.Is(err, errReplaced) && !errors.Is(err, storage.ErrCorrupted) && !errors.As(err, &errno) {
		// What is left is bbolt's own word for a file that it cannot use.
		return nil, file, fmt.Errorf("%w: %w", storage.ErrCorrupted, err)
	}
	return db, file, err
}

// initialMmapSize is how far the map reaches before it must be made anew,
// which has to wait for every reader. Windows makes the file as long as its
// map, and a 32-bit address space is small.
func initialMmapSize() int {
	if runtime.GOOS == "windows" || math.MaxInt == math.MaxInt32 {
		return 0
	}
	return 1 << 30
}

// errReplaced is the end of an attempt to open a file that a compaction has replaced
// in between.
var errReplaced = errors.New("the index was compacted meanwhile")

// checkLocked looks at a file before bbolt does, with its lock: whether it is still
// the one of that name, and its list of free pages.
func (x *Index) checkLocked(name string, file *os.File) error {
	opened, err := file.Stat()
	if err != nil || opened.Size() == 0 {
		return err // bbolt is about to make it
	}
	if now, err := x.root.Lstat(name); err == nil && !os.SameFile(opened, now) {
		return errReplaced
	}
	if name != fileName {
		return checkFree(file, nil) // a copy, whose sums are still to be made
	}
	state, _, err := readMetas(file)
	if err != nil {
		return err
	}
	if err := x.adoptSums(state.number); err != nil {
		return err
	}
	sums, err := x.openSums(sumsName, state.number, true)
	if err != nil {
		return err
	}
	return errors.Join(checkFree(file, newPageFile(nil, state.pageSize, sums)), sums.file.Close())
}

// openPages has the pages checked from now on, and looks whether they are an
// index that this program knows.
func (x *Index) openPages(noSync bool) error {
	f := x.bolt
	now, _, err := readMetas(f.file)
	if err != nil {
		return err
	}
	sums, err := x.openSums(sumsName, now.number, noSync)
	if err != nil {
		return err
	}
	f.pages = newPageFile(f.file, now.pageSize, sums)
	if err := checkFree(f.file, f.pages); err != nil {
		return err
	}
	if err := f.sumFound(now); isFull(err) {
		x.log.Warn("pages of the index have no sums for now", "index", x.path, "error", err) // what is there can be read
	} else if err != nil {
		return err
	}
	if err := x.migrate(noSync); err != nil {
		return err
	}
	if now, _, err = readMetas(f.file); err != nil {
		return err
	}
	return x.viewBolt(func(s *state) error {
		if s.txid != now.txid {
			return fmt.Errorf("%w: bbolt is at transaction %d, the meta pages at %d", storage.ErrIO, s.txid, now.txid)
		}
		if err := checkFormat(s); err != nil {
			return err
		}
		store, err := s.get(bucketMeta, keyStore)
		copy(x.storeID[:], store)
		return err
	})
}

// checkFree reads the list of free pages before bbolt does, which would take any
// page for free that the list names, and any memory that it asks for. It compares
// the list with its sum, if pages have one: also where sector 0 names the
// transaction after, whose meta page is damaged. The caller has the lock.
func checkFree(file *os.File, pages *pageFile) error {
	now, _, err := readMetas(file)
	if err != nil {
		return err
	}
	p, err := readPage(file, now, now.free)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	if pages != nil {
		if w := pages.sums.written; w == now.txid || w == now.txid+1 {
			if _, err := pages.check(p, now.txid); err != nil {
				return err
			}
		}
	}
	_, err = freePages(p, now.end)
	return err
}

func (x *Index) closeFiles() error {
	err := errors.Join(x.unshare(), x.bolt.close())
	if x.changes != nil {
		err = errors.Join(err, x.changes.close())
	}
	return err
}

// create makes an empty index under a temporary name and links it into place.
// When another process was faster, its index stands.
func (x *Index) create() error {
	temp := fileName + "." + uuid.NewString() + ".tmp"
	defer func() { _ = x.root.Remove(temp) }() // is gone after a rename
	db, _, err := x.openBolt(temp, false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if err := createBuckets(tx); err != nil {
			return err
		}
		store, err := uuid.NewRandom()
		if err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta.name())
		if err := meta.Put(keyStore, store[:]); err != nil {
			return err
		}
		if err := meta.Put(keyOrganization, []byte(storage.OrganizationBySession)); err != nil {
			return err
		}
		return meta.Put(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion))
	})
	if err := errors.Join(fromBolt(err), db.Close()); err != nil {
		return err
	}
	if err := x.place(temp); err != nil {
		return err
	}
	return x.syncDir()
}

// place gives a new index its name, unless there is one of that name.
func (x *Index) place(temp string) error {
	err := x.root.Link(temp, fileName)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	// Another process that was faster removes what it takes for leftovers.
	if _, e := x.root.Lstat(fileName); e == nil {
		return nil
	}
	return x.root.Rename(temp, fileName) // a filesystem without hard links
}

func (x *Index) syncDir() error {
	if runtime.GOOS == "windows" {
		return nil // has no sync of directories
	}
	dir, err := x.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// removeTemporary removes what a crash in create left. The caller has the
// lock, so an index with the final name exists and nobody needs them.
func (x *Index) removeTemporary() {
	names, err := fs.Glob(x.root.FS(), tempPattern)
	for _, name := range names {
		err = errors.Join(err, x.root.Remove(name))
	}
	if err != nil {
		x.log.Warn("temporary index files stay", "index", x.path, "error", err)
	}
}

// Organization is the store's mode, as recorded.
func (x *Index) Organization() storage.OrganizationMode { return x.organization }

// StoreID identifies the store, and stays with it for life.
func (x *Index) StoreID() uuid.UUID { return x.storeID }

// Close writes down what reads have touched, moves what the log has to bbolt and
// closes the files. What cannot be moved stays in the log for the next opening.
// Nothing may be under way, and nothing may follow.
func (x *Index) Close() error {
	x.stopFlusher()
	x.stopBackground()
	if err := x.empty(); err != nil {
		x.log.Warn("rows stay in the log until the next opening", "index", x.path, "error", err)
	}
	if err := x.closeFiles(); err != nil {
		return fmt.Errorf("close index %s: %w", x.path, storage.Classify(err))
	}
	return nil
}

// empty moves to bbolt all that is only in memory or in the log.
func (x *Index) empty() error {
	if err := x.brokenBy(); err != nil {
		return nil // said before
	}
	if err := x.change(false, func(*txn) error { return nil }); err != nil {
		return err
	}
	for len(x.layers()) > 0 {
		if err := x.flush(); err != nil {
			return err
		}
	}
	return nil
}

// fromBolt finds the error of the system again of which bbolt keeps the text
// alone, as when it grows its file.
func fromBolt(err error) error {
	var known syscall.Errno
	if err == nil || errors.As(err, &known) {
		return err
	}
	for _, errno := range [...]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EFBIG, syscall.EIO} {
		if strings.HasSuffix(err.Error(), ": "+errno.Error()) {
			return fmt.Errorf("%w: %w", err, errno)
		}
	}
	return err
}

// guard turns a panic, or a fault of the memory map, into ErrCorrupted: bbolt
// trusts the pages it reads.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: index: %v", storage.ErrCorrupted, p)
	}
}

// faultsPanic makes faults of the memory map panics for this goroutine until
// the returned function runs.
func faultsPanic() (restore func()) {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}
