package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// QuarantineItem is a file in the quarantine, or what a repair has done besides
// that its manifest lists.
type QuarantineItem struct {
	Batch  string              `json:"batch"`
	At     time.Time           `json:"at"`
	Path   string              `json:"path"` // in the tree, relative to the base directory
	Kind   storage.FindingKind `json:"kind,omitempty"`
	Detail string              `json:"detail"` // what was found
	Blob   string              `json:"blob,omitempty"`
	Size   int64               `json:"size"` // bytes
	// Written: the repair has put a new sidecar at Path. Whether an older one is in the
	// quarantine is told by an item of its own.
	Written bool `json:"written,omitempty"`
	// Reference is one that a repair has ended, for its bytes were lost.
	Reference string `json:"reference,omitempty"`
}

// Quarantine lists what repairs have moved away and not been asked to restore or
// purge, and which references they have ended, batch by batch, the oldest first.
// An error ends the list: ErrVersion, ErrPermission, ErrIO, ErrClosed, or ctx's.
func (f *FileStore) Quarantine(ctx context.Context) iter.Seq2[QuarantineItem, error] {
	return func(yield func(QuarantineItem, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(QuarantineItem{}, err)
			return
		}
		defer leave()
		fail := func(err error) {
			yield(QuarantineItem{}, fmt.Errorf("list quarantine of %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
		names, err := s.blobs.Batches(ctx)
		if err != nil {
			fail(err)
			return
		}
		for _, name := range names {
			items, err := s.quarantined(ctx, name)
			if err != nil {
				fail(err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
		}
	}
}

// quarantined is what a batch holds.
func (s *store) quarantined(ctx context.Context, name string) ([]QuarantineItem, error) {
	lines, err := s.readManifest(ctx, name)
	if err != nil {
		return nil, err
	}
	var items []QuarantineItem
	for i := range lines {
		l := &lines[i]
		item := QuarantineItem{
			Batch: name, At: l.At, Path: l.Path, Kind: l.Kind, Detail: l.Detail, Blob: l.Blob, Size: l.Size,
			Written: l.Action == manifestWrite, Reference: l.Reference,
		}
		switch l.Action {
		case manifestMove:
			file, err := s.blobs.Aside(ctx, name, l.Path)
			if err != nil {
				return nil, err
			}
			if !file.There || file.InTree {
				continue
			}
			item.Size = file.Size
		case manifestWrite:
			item.Detail = "a sidecar that the repair has written"
		case manifestLose:
			item.Detail = "a reference whose bytes were lost"
		}
		items = append(items, item)
	}
	return items, nil
}

// RestoreResult is what became of a file that was to be restored.
type RestoreResult struct {
	Batch  string `json:"batch"`
	Path   string `json:"path"`
	Done   bool   `json:"done"`
	Detail string `json:"detail"` // what was done, or why nothing
}

// RestoreQuarantine undoes a repair: it moves the files of a batch back to where
// they were, all of them or those of some paths, and tells what became of each. A
// file is never moved over another: a sidecar that the repair wrote goes to a batch
// of its own before, if nobody has written to it since, and any other file keeps
// its place. References that the repair has ended stay ended: with the file and its
// sidecar back, rebuilding the index from the sidecars brings them back.
//
// An error ends it: ErrInvalidQuery for a batch or path that is not there,
// ErrInDoubt, ErrPermission, ErrDiskSpace, ErrIO, ErrClosed, or ctx's; what is not
// restored then is in the batch.
func (f *FileStore) RestoreQuarantine(ctx context.Context, batch string, paths ...string) iter.Seq2[RestoreResult, error] {
	return func(yield func(RestoreResult, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(RestoreResult{}, err)
			return
		}
		defer leave()
		err = s.restore(ctx, batch, paths, func(r RestoreResult) bool { return yield(r, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(RestoreResult{}, fmt.Errorf("restore from the quarantine of %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
	}
}

func (s *store) restore(ctx context.Context, name string, paths []string, tell func(RestoreResult) bool) (err error) {
	names, err := s.blobs.Batches(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("%w: no batch %q in the quarantine", storage.ErrInvalidQuery, name)
	}
	lines, err := s.readManifest(ctx, name)
	if err != nil {
		return err
	}
	all, err := pickChanges(lines, name, paths)
	if err != nil {
		return err
	}
	own, err := s.newBatch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.settleRepairs(context.WithoutCancel(ctx))) }()
	for _, c := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := RestoreResult{Batch: name, Path: c.line.Path}
		if r.Done, r.Detail, err = s.restoreOne(ctx, name, own, &c); err != nil {
			return fmt.Errorf("%s: %w", c.line.Path, err)
		}
		if !tell(r) {
			return errStopped
		}
	}
	return nil
}

// change is what a repair has done to a path.
type change struct {
	line  manifestLine  // of the last move, or else of the writing
	wrote *manifestLine // nil: nothing
}

// pickChanges is what a batch has changed, of some paths or of all.
func pickChanges(lines []manifestLine, name string, paths []string) ([]change, error) {
	var all []change
	at := map[string]int{}
	for i := range lines {
		l := &lines[i]
		if l.Action == manifestLose || len(paths) > 0 && !slices.Contains(paths, l.Path) {
			continue
		}
		n, there := at[l.Path]
		if !there {
			n = len(all)
			at[l.Path] = n
			all = append(all, change{line: *l})
		}
		if l.Action == manifestWrite {
			all[n].wrote = l
		}
	}
	for _, path := range paths {
		if _, there := at[path]; !there {
			return nil, fmt.Errorf("%w: batch %s has no file %q", storage.ErrInvalidQuery, name, path)
		}
	}
	return all, nil
}

func (s *store) restoreOne(ctx context.Context, name string, own *batch, c *change) (done bool, detail string, err error) {
	key, err := c.line.lockOf()
	if err != nil {
		return false, "", err
	}
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return false, "", err
	}
	defer unlock()
	after := context.WithoutCancel(ctx)
	aside, err := s.blobs.Aside(ctx, name, c.line.Path)
	switch {
	case err != nil:
		return false, "", err
	case aside.InTree:
		return true, "was in its place", s.blobs.ForgetAside(after, name, c.line.Path)
	case !aside.There && c.wrote == nil:
		return false, "is not in the batch any more", nil
	}
	free, detail, err := s.makeRoom(after, own, c, key)
	if err != nil || !free {
		return false, detail, err
	}
	if aside.There {
		err = s.blobs.PutBack(after, name, c.line.Path)
		detail = "is back in its place"
	}
	if errors.Is(err, fs.ErrExist) {
		return false, "another file came to its place", nil
	}
	return err == nil, detail, err
}

// makeRoom moves the sidecar away that a repair has written where another is to be
// restored, or where none was. free is false, and detail says why, where something
// else is there.
func (s *store) makeRoom(ctx context.Context, own *batch, c *change, key storage.BlobKey) (free bool, detail string, err error) {
	_, err = s.blobs.Size(ctx, c.line.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return true, "what the repair wrote is gone", nil
	case err != nil && !errors.Is(err, storage.ErrCorrupted):
		return false, "", err
	case c.wrote == nil:
		return false, "another file is in its place, and stays", nil
	}
	size, crc, err := s.sumOf(ctx, c.line.Path, key)
	if err != nil {
		return false, "", err
	}
	if size != c.wrote.Size || crc != c.wrote.CRC {
		return false, "the sidecar has got further lines since the repair, and stays", nil
	}
	line := manifestLine{Path: c.line.Path, Blob: c.line.Blob, Kind: storage.FindingSidecar, Detail: "written by a repair that was undone"}
	_, err = own.move(ctx, line)
	return err == nil, "what the repair wrote is in batch " + own.name, err
}

// PurgedBatch is a batch of the quarantine that was removed.
type PurgedBatch struct {
	Batch string `json:"batch"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
}

// PurgeQuarantine removes what repairs have moved away, for good: all batches that
// were made before a time. Interrupted, it leaves the rest, and manifests that tell of
// it. progress is told how many files of how many are gone, before the batch is yielded
// that they were in. Errors: ErrPermission, ErrIO, ErrClosed, or ctx's.
func (f *FileStore) PurgeQuarantine(ctx context.Context, before time.Time, progress ...func(done, total int64)) iter.Seq2[PurgedBatch, error] {
	return func(yield func(PurgedBatch, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(PurgedBatch{}, err)
			return
		}
		defer leave()
		p := purge{s: s, tell: func(b PurgedBatch) bool { return yield(b, nil) }, progress: progress}
		err = p.run(ctx, before)
		if err != nil && !errors.Is(err, errStopped) {
			yield(PurgedBatch{}, fmt.Errorf("purge quarantine of %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
	}
}

// purge is a PurgeQuarantine under way.
type purge struct {
	s        *store
	tell     func(PurgedBatch) bool
	progress []func(done, total int64)
}

func (p *purge) run(ctx context.Context, before time.Time) (err error) {
	since := p.s.ledger.failed.Load()
	names, err := p.s.blobs.Batches(ctx)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		at, known := batchMade(name)
		return !known || !at.Before(before)
	})
	total, err := p.count(ctx, names)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.s.settle(context.WithoutCancel(ctx), since)) }()
	done := int64(0)
	for _, name := range names {
		gone, err := p.held(ctx, name)
		if err != nil {
			return err
		}
		if err := p.s.blobs.Purge(ctx, name); err != nil {
			return fmt.Errorf("batch %s: %w", name, err)
		}
		p.s.cfg.Logger.Info("purged a batch of the quarantine", "store", p.s.cfg.BaseDir, "batch", name, "files", gone.Files, "bytes", gone.Bytes)
		done += gone.Files
		for _, tell := range p.progress {
			tell(done, max(done, total))
		}
		if !p.tell(gone) {
			return errStopped
		}
	}
	return nil
}

// count counts the files of batches, where somebody wants to know.
func (p *purge) count(ctx context.Context, names []string) (total int64, err error) {
	if len(p.progress) == 0 {
		return 0, nil
	}
	for _, name := range names {
		batch, err := p.held(ctx, name)
		if err != nil {
			return 0, err
		}
		total += batch.Files
	}
	return total, nil
}

// held is what a batch holds in files.
func (p *purge) held(ctx context.Context, name string) (PurgedBatch, error) {
	batch := PurgedBatch{Batch: name}
	items, err := p.s.quarantined(ctx, name)
	for i := range items {
		if !items[i].Written && items[i].Reference == "" {
			batch.Files++
			batch.Bytes += items[i].Size
		}
	}
	return batch, err
}
