package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// BackupOptions change how a Backup is made.
type BackupOptions struct {
	// Copy copies all bytes and checks them. Default: on one filesystem, files are
	// shared with the store by hard links, or by their blocks, which costs no
	// space and no time, and no copy: damage of the disk hits both.
	Copy bool
	// TakeOver allows dest to be the backup that this store was restored from, while
	// that is the last one there: it becomes one of this store, and no other store can
	// use it any more. Default: that is ErrConflict.
	TakeOver bool
	// Progress is told, now and then, what is being done, and for how many references
	// or blobs it is done, of about how many. It must not call the store.
	Progress func(what BackupStep, done, total int64)
}

// BackupStep is a part of a Backup; its values are stable.
type BackupStep string

const (
	BackupIndex    BackupStep = "index"    // of references
	BackupCopy     BackupStep = "copy"     // of blobs: their files are kept, shared or copied
	BackupSidecars BackupStep = "sidecars" // of blobs
)

// Backup is what a Backup or a Restore has made.
type Backup struct {
	At         time.Time // the moment that it shows
	References int64
	Blobs      int64
	Bytes      int64 // of the blobs

	Kept        int64 // blobs that an earlier backup had
	Shared      int64 // blobs that are links, or share their blocks
	Copied      int64 // blobs whose bytes were copied
	CopiedBytes int64
	Erased      int64 // by a Restore: references that were erased after the moment
	// LeftOut are blobs that are damaged in the store and that no earlier backup
	// had. They are not in this one, nor are their references.
	LeftOut []storage.Finding
}

// Backup makes dest, a directory outside the store that is new, empty, or an earlier
// backup of the same store, a store of its own that shows this one at one moment,
// while stores and deletes go on. Open opens it, Restore makes another store of it.
//
// One moment: a call that began before it is in the backup as a whole, one that began
// later is not; of those that are under way, some are. So whatever had returned when
// another call began is in the backup if that call is. Backup.At is just before the
// moment. References come with all that they have, blobs with their paths, and holds
// and the ledger of erasures come too.
//
// Blobs that an earlier backup has are kept, what is gone from the store is removed,
// so dest is always one backup, the last. One that was interrupted is continued by
// another call; until shortly before the end, dest shows the earlier backup.
// Files that are copied are compared with their CRC-32C, of links the size is. The
// files of what is deleted meanwhile stay on disk until the backup has them.
//
// Damaged blobs are left out with their references; the backup is whole then all the
// same, and Backup ends with ErrCorrupted. Errors that end it: ErrInvalidConfig for
// a dest inside the store, ErrConflict for one that is something else (also for the
// backup that the store was restored from: see BackupOptions.TakeOver), ErrLocked for
// one that another backup writes or that is open, ErrVersion, ErrDiskSpace,
// ErrPermission, ErrIO, ErrClosed, or ctx's.
func (f *FileStore) Backup(ctx context.Context, dest string, opts BackupOptions) (Backup, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Backup{}, err
	}
	defer leave()
	b := &backup{ctx: ctx, s: s, opts: opts}
	from, err := readRestored(s.ctl)
	if err != nil {
		return Backup{}, fmt.Errorf("back up %s to %s: %w", s.cfg.BaseDir, dest, storage.Classify(err))
	}
	b.next = succession{from: from, asked: opts.TakeOver}
	err = b.run(dest, backupMarker{Version: backupVersion, Kind: kindBackup, Store: s.storeID(), Directory: s.cfg.BaseDir})
	if err != nil {
		return b.done, fmt.Errorf("back up %s to %s: %w", s.cfg.BaseDir, dest, storage.Classify(err))
	}
	return b.done, leftOut("back up", s.cfg.BaseDir, b.done.LeftOut)
}

// backup is a Backup, or a Restore, under way.
type backup struct {
	ctx   context.Context
	s     *store
	opts  BackupOptions
	next  succession
	dir   *backupDir
	index Index // the new one
	redo  bool  // an earlier attempt was interrupted: what it wrote may not be durable
	done  Backup

	journals map[string][]byte // carried files as they were at the moment

	unsettled int // blobs whose files or sidecars came since the last Settle
}

func (b *backup) run(dest string, want backupMarker) (err error) {
	if dest == "" {
		return fmt.Errorf("%w: no directory to write to", storage.ErrInvalidConfig)
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return err
	}
	if err := refuseNested(b.s.cfg.BaseDir, dest); err != nil {
		return err
	}
	if b.dir, err = openBackupDir(dest, want, b.next, &b.s.cfg); err != nil {
		return err
	}
	defer func() { err = settled(errors.Join(err, b.dir.close())) }()
	if err := b.refuseOpen(); err != nil {
		return err
	}
	b.redo = !b.dir.marker.Whole
	if err := b.dir.prepare(&b.s.cfg); err != nil {
		return err
	}
	if err := b.collect(); err != nil {
		return err
	}
	if err := b.s.faults.reach(b.ctx, faultCollected); err != nil {
		return err
	}
	return b.turn(want)
}

// tell tells how far it is.
func (b *backup) tell(what BackupStep, done, total int64) {
	if b.opts.Progress != nil {
		b.opts.Progress(what, done, max(done, total))
	}
}

// collect makes the new index and brings the files of its blobs. It adds files to
// what is there, and changes nothing that the earlier backup needs.
func (b *backup) collect() (err error) {
	// Before the moment, so that what is deleted after it is still there.
	b.s.pins.hold()
	defer b.s.unpin(b.ctx)
	if err := b.makeIndex(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.index.Close())
		}
	}()
	if err := b.files(); err != nil {
		return err
	}
	return b.dir.tree.Settle(b.ctx)
}

// turn makes the directory show the new index in place of the earlier one.
func (b *backup) turn(want backupMarker) error {
	counters, err := b.index.Counters(b.ctx)
	if err == nil {
		err = b.settle(counters.Blobs)
	}
	if err := errors.Join(err, b.index.Close()); err != nil {
		return err
	}
	if err := b.s.faults.reach(b.ctx, faultTurning); err != nil {
		return err
	}
	if err := b.dir.placeIndex(); err != nil {
		return err
	}
	if err := b.s.faults.reach(b.ctx, faultTurned); err != nil {
		return err
	}
	b.done.References, b.done.Blobs, b.done.Bytes = counters.Refs, counters.Blobs, counters.PhysicalBytes
	want.Index, want.Whole, want.At = b.dir.marker.Index, want.Kind == kindBackup, b.done.At
	want.References, want.Blobs, want.Bytes = counters.Refs, counters.Blobs, counters.PhysicalBytes
	return b.dir.mark(want)
}

// settle writes the sidecars and removes what is gone.
func (b *backup) settle(blobs int64) error {
	if err := b.refuseOpen(); err != nil {
		return err
	}
	names, err := b.dir.newIndexFiles()
	if err != nil {
		return err
	}
	m := b.dir.marker
	m.Whole, m.Index = false, union(m.Index, names)
	if err := b.dir.mark(m); err != nil {
		return err
	}
	if err := b.placeJournals(); err != nil {
		return err
	}
	if err := b.sidecars(blobs); err != nil {
		return err
	}
	if err := b.prune(); err != nil {
		return err
	}
	return b.dir.tree.Settle(b.ctx)
}

// refuseOpen refuses an earlier backup that somebody uses as a store.
func (b *backup) refuseOpen() error {
	if !b.dir.marker.Whole {
		return nil // which nobody can open
	}
	config := b.indexConfig()
	config.Root, config.Create = b.dir.ctl, false
	index, err := b.s.cfg.OpenIndex(b.ctx, config)
	if errors.Is(err, storage.ErrLocked) {
		return err
	} else if err != nil {
		b.s.cfg.Logger.Warn("the index of an earlier backup cannot be opened and is replaced", "store", b.dir.path, "error", err)
		return nil
	}
	return index.Close()
}

// sidecars makes the sidecar of every blob of the backup mirror its rows. total is how
// many there are.
func (b *backup) sidecars(total int64) error {
	written := int64(0)
	return b.each(func(row *storage.BlobRow) error {
		refs, err := refsOf(b.ctx, b.index, row)
		if err != nil {
			return err
		}
		if int64(len(refs)) != row.Refs {
			return fmt.Errorf("%w: blob %s has %d references, its refcount is %d", storage.ErrCorrupted, row.Key, len(refs), row.Refs)
		}
		done, err := b.dir.tree.Prepare(b.ctx, row.Path)
		if err != nil {
			return err
		}
		defer done(true)
		if err := b.dir.tree.WriteSidecar(b.ctx, row, refs, b.redo); err != nil {
			return err
		}
		written++
		b.tell(BackupSidecars, written, total)
		return b.settleSome()
	})
}

// settleSome is called for every blob, and has as few names wait to be made durable as
// a store has: all of them would be in memory, and copies in staging too.
func (b *backup) settleSome() error {
	if b.unsettled++; b.unsettled < checkpointDebt {
		return nil
	}
	b.unsettled = 0
	return b.dir.tree.Settle(b.ctx)
}

// prune removes the files of blobs that are not in the backup.
func (b *backup) prune() error {
	find := &verification{ctx: b.ctx, s: &store{index: b.index}}
	for file, err := range b.dir.tree.Files(b.ctx) {
		if err != nil {
			return err
		}
		if !file.Ours {
			continue
		}
		named, err := find.named(&file)
		if err != nil {
			return err
		}
		if !named {
			if err := b.dir.tree.Remove(b.ctx, "", file.Blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// each goes over the blobs of the new index.
func (b *backup) each(do func(*storage.BlobRow) error) error {
	var after storage.BlobKey
	for {
		page, err := b.index.Blobs(b.ctx, after, verifyPage)
		if err != nil {
			return err
		}
		for i := range page {
			if err := do(&page[i]); err != nil {
				return err
			}
			after = page[i].Key
		}
		if len(page) < verifyPage {
			return nil
		}
	}
}

// union is the names in either list, each once.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
