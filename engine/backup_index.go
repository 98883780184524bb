package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// indexPage is how many references are read at a time.
const indexPage = 1024

// indexWriters is how many references are added to a new index at a time, so that
// they make large groups. Alone each would wait for a commit of its own.
const indexWriters = 64

// indexConfig is that of an index in a backup. It is not synced while it is made, but
// as a whole before it is put in place.
func (b *backup) indexConfig() IndexConfig {
	return IndexConfig{
		Organization: b.s.cfg.Organization, NoSync: true, FileMode: b.s.cfg.FileMode, Logger: b.s.cfg.Logger,
		Sync: func([]storage.BlobKey) error { return nil },
	}
}

// makeIndex makes the new index: what the store's index holds at one moment. It is
// closed after an error.
func (b *backup) makeIndex() (err error) {
	root, err := b.dir.ctl.OpenRoot(backupIndexDir)
	if err != nil {
		return err
	}
	config := b.indexConfig()
	config.Root, config.Create = root, true
	index, err := b.s.cfg.OpenIndex(b.ctx, config)
	if err != nil {
		return errors.Join(err, root.Close())
	}
	b.index = &rootedIndex{index, root}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.index.Close())
		}
	}()
	cut, err := b.beginCut()
	if err != nil {
		return err
	}
	err = b.addPages(cut)
	b.s.cuts.endCut(cut) // from here on it knows all that was changed meanwhile
	if err != nil {
		return err
	}
	var changed []storage.RefPair
	for _, p := range cut.was {
		lacks, err := b.lacks(&p)
		if err != nil {
			return err
		}
		if lacks {
			changed = append(changed, p)
		}
	}
	return b.add(changed)
}

// settled is an error without the doubt whether a change of the new index was made:
// another attempt makes another one.
func settled(err error) error {
	if !errors.Is(err, storage.ErrInDoubt) {
		return err
	}
	if cause := new(fs.PathError); errors.As(err, &cause) {
		return fmt.Errorf("make the index: %w", storage.Classify(cause))
	}
	return fmt.Errorf("%w: make the index: %s", storage.ErrIO, err)
}

// rootedIndex closes the directory of an index with it.
type rootedIndex struct {
	Index
	root interface{ Close() error }
}

func (i *rootedIndex) Close() error { return errors.Join(i.Index.Close(), i.root.Close()) }

// addPages adds what the store's index lists and the cut holds.
func (b *backup) addPages(cut *cut) error {
	counters, err := b.s.index.Counters(b.ctx)
	if err != nil {
		return err
	}
	var after storage.UUID
	added := int64(0)
	for {
		page, next, more, err := b.s.index.Refs(b.ctx, storage.RefFilter{}, after, indexPage)
		if err != nil {
			return err
		}
		held := page[:0]
		for _, p := range page {
			if !cut.later(p.Ref.UUID) {
				held = append(held, p)
			}
		}
		if err := b.add(held); err != nil {
			return err
		}
		added += int64(len(held))
		b.tell(BackupIndex, added, counters.Refs)
		if after = next; !more {
			return nil
		}
	}
}

// lacks says whether the new index does not have a reference as it was: it has
// ended then.
func (b *backup) lacks(p *storage.RefPair) (bool, error) {
	id, err := storage.ParseID(p.Blob.NameHash() + "-" + p.Ref.UUID.String())
	if err != nil {
		return false, err
	}
	ref, _, err := b.index.Ref(b.ctx, id)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return true, nil
	case err != nil, ref.Revision == p.Ref.Revision:
		return false, err
	}
	// The page was read after the change.
	if _, err := b.index.End(b.ctx, id, time.Time{}); err != nil {
		return false, err
	}
	return true, b.settleDebt()
}

// settleDebt drops what the new index owes: sidecars are written later, all of them,
// and files that are not of the backup are removed.
func (b *backup) settleDebt() error {
	debt, err := b.index.Debt(b.ctx)
	if err != nil {
		return err
	}
	return b.index.Settle(b.ctx, debt)
}

// add adds references to the new index.
func (b *backup) add(pairs []storage.RefPair) error {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	work := make(chan *storage.RefPair, len(pairs))
	paid := make([]storage.Mirror, len(pairs))
	for i := range pairs {
		pairs[i].Blob.Ended = 0 // the new sidecars tell of none
		work <- &pairs[i]
		paid[i] = storage.Mirror{UUID: pairs[i].Ref.UUID, Blob: pairs[i].Ref.Blob, Revision: pairs[i].Ref.Revision}
	}
	close(work)
	failed := make([]error, min(indexWriters, len(pairs)))
	var writers sync.WaitGroup
	for i := range failed {
		writers.Go(func() {
			for p := range work {
				if _, err := b.index.Add(ctx, &storage.Addition{Ref: p.Ref, Blob: p.Blob, Staged: true}); err != nil {
					failed[i] = err
					cancel()
					return
				}
			}
		})
	}
	writers.Wait()
	for _, err := range failed {
		if err != nil && !errors.Is(err, context.Canceled) { // one failure ends the others
			return err
		}
	}
	if err := b.ctx.Err(); err != nil || len(pairs) == 0 {
		return err
	}
	return b.index.Settle(b.ctx, storage.Debt{Mirrors: paid})
}

// leaveOut takes a blob out of the new index.
func (b *backup) leaveOut(row *storage.BlobRow) error {
	refs, err := refsOf(b.ctx, b.index, row)
	if err != nil {
		return err
	}
	for i := range refs {
		id, err := storage.ParseID(row.NameHash() + "-" + refs[i].UUID.String())
		if err != nil {
			return err
		}
		if _, err := b.index.End(b.ctx, id, time.Time{}); err != nil {
			return err
		}
	}
	return b.settleDebt()
}
