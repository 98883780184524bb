// Package engine is the store: it orders what happens to the index and to the
// files so that no crash, at whatever point, breaks a promise; it recovers,
// verifies, and owns the life of a store.
//
// # Life of a Store
//
// Content is hashed (input.go), staged, synced, committed, published (store.go),
// and mirrored in the blob's sidecar. Bytes that are there already only gain a
// reference. Once the commit is durable the reference exists; the rest is owed,
// recorded in the same transaction as debt, and is finished by Open after a
// crash (recover.go). A checkpoint once a second makes what was paid durable
// and drops it from the debt (checkpoint.go).
//
// # Life of a Delete
//
// The commit ends the reference and, with the last one, the blob's row, and
// records the file as an unlink that is owed. Then the files go (delete.go). Where
// a hold is on the reference there is no commit (held.go).
//
// # Verify and repair
//
// A verification compares index, files and sidecars beside all of this, and looks
// again before it tells of anything (verify.go). A repair is planned from what it
// found (repairplan.go), looks again under the lock of each blob's key, and moves
// files to the quarantine instead of removing them (repair.go, quarantine.go).
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine/sha256mb"
	"github.com/mediabolt/mediabolt/storage"
)

// FileStore is a store of media in a directory of the local filesystem. It is
// safe for any number of goroutines. It implements
// storage.MediaStorageService.
type FileStore struct {
	config  FileStoreConfig
	opening chan struct{} // of capacity 1; full while somebody opens or closes
	gone    chan struct{} // closed when Close is done

	mu     sync.Mutex // guards the rest; taken after opening, held for moments
	store  *store     // nil until the first use
	closed bool
	users  sync.WaitGroup // calls under way; Add only while mu is held and closed is false
}

// store is an open store. Locks are taken in this order: erasures.running,
// ledger.turn, given's of a blob, given's of a UUID, holds.mu, those of blobs' keys,
// then ledger.mu; the ones inside index and blobs come last and are let go before
// those packages return.
type store struct {
	cfg    FileStoreConfig
	root   *os.Root // of BaseDir
	ctl    *os.Root // of blobs.ControlDir
	guard  *os.File // see takeGuard
	index  Index
	blobs  Blobs
	mint   mint
	sums   sha256mb.Pairer
	holds  holds
	keys   keyLocks
	room   *room   // nil: nothing is to be kept free
	limits *limits // nil: there are none
	// given is for who adds references that have UUIDs already: a lock per blob, by
	// its key, and one per UUID, by the key that a blob of its own has.
	given keyLocks
	pins  pins
	// slots bounds how many blobs are between stage and publish.
	slots    chan struct{}
	ledger   ledger
	erasures erasures
	sweeper  sweeper
	faults   faultPoints
	watch    *observer
	// origins is what was adopted from where; its lock comes before those above.
	origins origins
	cuts    *cuttable // is index, once the store is open
}

// maxStaged bounds the blobs between stage and publish, each of which holds a
// file open: well past where more of them make groups faster.
const maxStaged = 512

// NewFileStore returns a store that is opened on first use. A configuration
// that cannot be used, or a store that cannot be opened, is reported by every
// call.
func NewFileStore(config FileStoreConfig) *FileStore {
	return &FileStore{config: config, opening: make(chan struct{}, 1), gone: make(chan struct{})}
}

// Open opens the store in config.BaseDir, or makes one, and finishes what a
// crash interrupted. Errors: ErrInvalidConfig, ErrLocked, ErrVersion,
// ErrCorrupted, ErrNoStore, ErrPermission, ErrDiskSpace, ErrIO, or ctx's.
func Open(ctx context.Context, config FileStoreConfig) (*FileStore, error) {
	f := NewFileStore(config)
	_, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	leave()
	return f, nil
}

// enter opens the store where that is still to do, and keeps it open until
// leave is called.
func (f *FileStore) enter(ctx context.Context) (s *store, leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if s, err := f.use(nil); s != nil || err != nil {
		return s, f.users.Done, err
	}
	select {
	case f.opening <- struct{}{}:
		defer func() { <-f.opening }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if s, err := f.use(nil); s != nil || err != nil {
		return s, f.users.Done, err
	}
	opened, err := openOrRebuild(ctx, f.config)
	if err != nil {
		return nil, nil, fmt.Errorf("open store %s: %w", f.dir(), err)
	}
	if s, err = f.use(opened); err != nil {
		return nil, nil, errors.Join(err, opened.close())
	}
	return s, f.users.Done, nil
}

// use counts a call on the open store, after it has taken opened for it if that
// is not nil. It returns nil when the store has not been opened yet.
func (f *FileStore) use(opened *store) (*store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("store %s: %w", f.dir(), storage.ErrClosed)
	}
	if opened != nil {
		f.store = opened
	}
	if f.store != nil {
		f.users.Add(1)
	}
	return f.store, nil
}

// Close waits for the calls under way, makes everything durable, and lets go of
// the store. Later calls, other than Close, are ErrClosed; Blobs that are open
// stay readable. An error does not leave the store open.
func (f *FileStore) Close() error {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	if again {
		<-f.gone
		return nil
	}
	defer close(f.gone)
	f.opening <- struct{}{} // whoever opens it now finds it closed, and closes it
	if f.store != nil {
		f.store.erasures.quit() // calls under way may wait for it
	}
	f.users.Wait()
	if f.store == nil {
		return nil
	}
	if err := f.store.close(); err != nil {
		return fmt.Errorf("close store %s: %w", f.dir(), err)
	}
	return nil
}

// dir is the base directory for messages, absolute where that can be told.
func (f *FileStore) dir() string {
	if abs, err := filepath.Abs(f.config.BaseDir); err == nil && f.config.BaseDir != "" {
		return abs
	}
	return f.config.BaseDir
}

func openStore(ctx context.Context, config FileStoreConfig) (_ *store, err error) {
	begun := time.Now()
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &store{cfg: cfg, slots: make(chan struct{}, maxStaged), faults: config.faults, watch: newObserver(&cfg)}
	defer func() {
		if err != nil {
			err = errors.Join(storage.Classify(err), s.closeParts())
		}
	}()
	if err := s.openDirs(); err != nil {
		return nil, err
	}
	if err := refuseUnfinished(s.ctl, &cfg); err != nil {
		return nil, err
	}
	if err := s.shareGuard(ctx); err != nil {
		return nil, err
	}
	used, err := blobs.Used(s.root)
	if err != nil {
		return nil, err
	}
	if !used && cfg.Sync != SyncNone {
		if err := syncAbove(s.cfg.BaseDir); err != nil {
			return nil, err
		}
	}
	s.index, err = cfg.OpenIndex(ctx, IndexConfig{
		Root: s.ctl, Create: !cfg.NoCreate && !used, Organization: cfg.Organization, NoSync: cfg.Sync == SyncNone,
		LockTimeout: cfg.LockTimeout, FileMode: cfg.FileMode, CompactAt: cfg.CompactAt, Logger: cfg.Logger,
		Sync:      func(keys []storage.BlobKey) error { return s.blobs.Sync(context.Background(), keys...) },
		Committed: s.watch.committed, Compacted: s.watch.compacted,
	})
	if errors.Is(err, storage.ErrNoStore) && used {
		return nil, fmt.Errorf("%w: the index in %s is gone although the store has been used: %s",
			storage.ErrCorrupted, s.ctl.Name(), wayOut)
	} else if errors.Is(err, storage.ErrCorrupted) {
		return nil, fmt.Errorf("%w: %s", err, wayOut)
	} else if err != nil {
		return nil, err
	}
	s.cfg.Organization = s.index.Organization()
	if err := s.openTree(); err != nil {
		return nil, err
	}
	if s.room, err = openRoom(s.root, cfg.MinFreeBytes); err != nil {
		return nil, err
	}
	if cfg.decorate != nil {
		s.index, s.blobs = cfg.decorate(s.index, s.blobs)
	}
	s.cuts = newCuttable(s.index)
	s.index = s.cuts
	s.limits = newLimits(&cfg, s.index, s.room)
	s.openHolds()
	s.openErasures()
	s.openOrigins()
	if err := s.recover(ctx); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	s.ledger.start(s)
	s.startErasures()
	s.sweeper.start(s)
	cfg.Logger.Debug("opened", "store", cfg.BaseDir, "organization", s.cfg.Organization, "took", time.Since(begun))
	return s, nil
}

func (s *store) openTree() error {
	tree, err := blobs.Open(blobs.Config{
		Root: s.root, NoSync: s.cfg.Sync == SyncNone, NoSyncFS: s.cfg.NoSyncFS,
		SyncFS: s.cfg.syncFS, FileMode: s.cfg.FileMode, DirMode: s.cfg.DirMode, Logger: s.cfg.Logger,
	})
	if err == nil {
		s.blobs = tree
	}
	return err
}

// openDirs opens the base directory and the control directory, making them
// where that is allowed.
func (s *store) openDirs() error {
	dir := filepath.Join(s.cfg.BaseDir, blobs.ControlDir)
	if s.cfg.NoCreate {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is not there", storage.ErrNoStore, dir)
		}
	} else if err := os.MkdirAll(dir, s.cfg.DirMode); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.cfg.BaseDir)
	if err != nil {
		return err
	}
	s.root = root
	s.ctl, err = root.OpenRoot(blobs.ControlDir)
	return err
}

// syncAbove makes the name of the base directory of a new store, and of all above
// it, durable: also those that an earlier attempt made, which was killed or could
// not sync. A directory that may not be read, or knows no sync, was not made by
// one.
func syncAbove(dir string) error {
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		err := syncDir(parent)
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("sync %s: %w", parent, err)
		}
	}
	return nil
}

func (s *store) close() error {
	begun := time.Now()
	s.sweeper.stop()
	s.erasures.stop()
	s.ledger.stop()
	err := s.checkpoint(context.Background(), true)
	if err == nil {
		// Makes durable that the checkpoint removed staged names: otherwise a
		// power cut brings them back, those of one session after the other.
		err = s.blobs.Settle(context.Background())
	}
	err = errors.Join(err, s.closeParts())
	s.cfg.Logger.Debug("closed", "store", s.cfg.BaseDir, "took", time.Since(begun))
	return err
}

// closeParts closes what has been opened so far, the index last to be opened
// by anybody else.
func (s *store) closeParts() error {
	var err error
	if s.blobs != nil {
		err = errors.Join(err, s.blobs.Close())
	}
	if s.index != nil {
		err = errors.Join(err, s.index.Close())
	}
	err = errors.Join(err, s.room.close(), s.leaveGuard())
	for _, root := range [...]*os.Root{s.ctl, s.root} {
		if root != nil {
			err = errors.Join(err, root.Close())
		}
	}
	return err
}

// now is the time by which policies begin and end, as rows keep it.
func (c *FileStoreConfig) now() time.Time {
	if c.clock == nil {
		return now()
	}
	return c.clock().UTC().Truncate(time.Microsecond)
}

// now is the time as rows keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
