package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Delete ends a reference, or takes one from its count if that is more than one, and removes the blob's file with the last one. Once
// the end is durable Delete is a success; a file that cannot be removed then is
// logged and tried again at every checkpoint and opening. A reference that a hold
// is on stays: ErrHeld. While the journal of the holds is damaged nothing is
// deleted: ErrCorrupted. See storage.MediaStorageService.
func (f *FileStore) Delete(ctx context.Context, ref *storage.StorageReference) error {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	begun := time.Now()
	id, err := parseRef(ref)
	var removal storage.Removal
	if err == nil {
		removal, err = s.delete(ctx, id)
	}
	err = storage.Classify(err)
	s.watch.deleted(begun, ref, id, &removal, err)
	if err != nil {
		return fmt.Errorf("delete from %s: %w", s.cfg.BaseDir, err)
	}
	return nil
}

// parseRef takes the one thing from a reference that is trusted.
func parseRef(ref *storage.StorageReference) (storage.ID, error) {
	if ref == nil {
		return storage.ID{}, fmt.Errorf("%w: no reference", storage.ErrInvalidRef)
	}
	if ref.Backend != "" && ref.Backend != Backend {
		return storage.ID{}, fmt.Errorf("%w: backend %q: this store is %q", storage.ErrInvalidRef, ref.Backend, Backend)
	}
	return storage.ParseID(ref.ID)
}

func (s *store) delete(ctx context.Context, id storage.ID) (storage.Removal, error) {
	removal, err := s.removeUnheld(ctx, id)
	if err != nil {
		return removal, fmt.Errorf("reference %s: %w", id, err)
	}
	if !removal.Found {
		return removal, nil
	}
	if err := s.faults.reach(ctx, faultRemoved); err != nil {
		return removal, err
	}
	s.payRemoval(context.WithoutCancel(ctx), id.UUID, &removal)
	return removal, nil
}

// payRemoval does to the tree what a committed removal owes.
func (s *store) payRemoval(ctx context.Context, id storage.UUID, r *storage.Removal) {
	s.limits.freed()
	if !r.Last {
		s.mirror(ctx, &r.Blob, removalLine(id, r))
		return
	}
	u := owedUnlink{key: r.Blob.Key, path: r.Blob.Path}
	if s.pins.defers(u) {
		return
	}
	if err := s.unlink(ctx, u); err != nil {
		s.cfg.Logger.Warn("file of a deleted blob stays for now", "store", s.cfg.BaseDir, "path", u.path, "error", err)
		s.ledger.oweUnlink(u)
		return
	}
	s.ledger.payUnlink(u.path)
}

// removalLine is what a sidecar is to say of a removal that left its blob.
func removalLine(id storage.UUID, r *storage.Removal) *storage.SidecarLine {
	if r.Counted {
		return &storage.SidecarLine{Ref: &r.Ref}
	}
	return &storage.SidecarLine{Deleted: id}
}

func (s *store) unlink(ctx context.Context, u owedUnlink) error {
	// Whoever publishes or mirrors this blob finishes first.
	unlock, err := s.keys.lock(ctx, u.key)
	if err != nil {
		return err
	}
	defer unlock()
	return s.removeFiles(ctx, u)
}

// removeFiles removes what a deleted blob has left. The caller holds the lock of
// its key.
func (s *store) removeFiles(ctx context.Context, u owedUnlink) error {
	if err := s.blobs.Remove(ctx, u.key, u.path); err != nil || u.key == "" {
		return err
	}
	// A blob that could not be published has its bytes in staging alone.
	if _, err := s.index.Blob(ctx, u.key); errors.Is(err, storage.ErrNotFound) {
		return s.blobs.Discard(ctx, u.key)
	}
	return nil
}
