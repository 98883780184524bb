package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// unburyPause is between two looks whether tombstones have been written.
const unburyPause = 10 * time.Millisecond

// unbury prepares a blob for references that come back after they have ended: a
// tombstone in its sidecar counts more than any addition, for lines are in no order.
// So the sidecar is written anew without it, durably, before the reference is
// there again. The caller keeps others from giving these UUIDs to references.
func (s *store) unbury(ctx context.Context, key storage.BlobKey, refs []storage.RefRow) error {
	for {
		buried, owed, err := s.buried(ctx, key, refs)
		if err != nil || !buried {
			return err
		}
		if !owed {
			return s.renewSidecar(ctx, key)
		}
		// A tombstone that is written later must not be written afterwards.
		if err := s.checkpoint(ctx, true); err != nil {
			return err
		}
		if s.ledger.failing() {
			return fmt.Errorf("%w: the sidecar of blob %s cannot be written now; see the log", storage.ErrIO, key)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unburyPause):
		}
	}
}

// buried says whether there is a tombstone of any of the references, and whether one
// is still owed.
func (s *store) buried(ctx context.Context, key storage.BlobKey, refs []storage.RefRow) (buried, owed bool, err error) {
	blob, err := s.index.Blob(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	ids := make(map[storage.UUID]bool, len(refs))
	for i := range refs {
		ids[refs[i].UUID] = true
	}
	// The debt first: what leaves it meanwhile is in the sidecar.
	debt, err := s.index.Debt(ctx)
	if err != nil {
		return false, false, err
	}
	if slices.ContainsFunc(debt.Mirrors, func(m storage.Mirror) bool { return m.Blob == key && m.Deleted && ids[m.UUID] }) {
		return true, true, nil
	}
	sidecar, err := s.blobs.ReadSidecar(ctx, blob.Path)
	if errors.Is(err, storage.ErrNotFound) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	buried = slices.ContainsFunc(sidecar.Lines, func(l storage.SidecarLine) bool { return l.Ref == nil && ids[l.Deleted] })
	return buried, false, nil
}

// renewSidecar writes a sidecar anew from the rows, durably. Lines that are written
// later than their rows may be there twice then.
func (s *store) renewSidecar(ctx context.Context, key storage.BlobKey) error {
	since := s.ledger.failed.Load()
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	blob, err := s.index.Blob(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := s.replaceSidecar(ctx, &blob, true); err != nil {
		return err
	}
	return s.settle(ctx, since)
}

// refsOf reads the references to a blob, oldest first.
func refsOf(ctx context.Context, index Index, blob *storage.BlobRow) ([]storage.RefRow, error) {
	var refs []storage.RefRow
	for p, err := range (&store{index: index}).sharers(ctx, blob) {
		if err != nil {
			return nil, err
		}
		refs = append(refs, p.Ref)
	}
	return refs, nil
}
