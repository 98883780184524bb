package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// faulty locks the blob of an item, and looks at its file again. unlock is nil when
// there is nothing wrong with it any more.
func (r *repair) faulty(ctx context.Context, item *RepairItem) (row storage.BlobRow, unlock func(), err error) {
	row, unlock, err = r.lockRow(ctx, item)
	if err != nil || unlock == nil {
		return row, nil, err
	}
	kind, _, err := r.v.checkFile(ctx, &row)
	if err == nil && kind != "" {
		item.Kind = kind
		return row, unlock, nil
	}
	unlock()
	return row, nil, err
}

// heal gives a blob the bytes of a copy: they are spooled and compared, the damaged
// file goes to the quarantine, and only then are they staged: a recovery would
// publish them over it.
func (r *repair) heal(ctx context.Context, item *RepairItem) (why string, err error) {
	row, unlock, err := r.faulty(ctx, item)
	if err != nil || unlock == nil {
		return notSo, err
	}
	defer unlock()
	spool, err := r.spoolCopy(ctx, &row, item.From)
	if err != nil {
		return "", err
	}
	after := context.WithoutCancel(ctx)
	if spool == "" {
		return "the copy " + item.From + " is not what it was", nil
	}
	if _, err := r.batch.move(after, item.line(row.Path)); err != nil {
		return "", errors.Join(err, r.s.blobs.Drop(after, spool))
	}
	if err := r.s.blobs.Claim(after, spool, row.Key); err != nil {
		return "", errors.Join(err, r.s.blobs.Drop(after, spool))
	}
	if err := r.s.blobs.Sync(after, row.Key); err != nil {
		return "", errors.Join(err, r.s.blobs.Discard(after, row.Key))
	}
	if err := r.s.faults.reach(ctx, faultClaimed); err != nil {
		return "", err
	}
	return "", r.s.publish(after, &row)
}

// spoolCopy spools the copy of a blob, empty when it has other bytes.
func (r *repair) spoolCopy(ctx context.Context, row *storage.BlobRow, from string) (spool string, err error) {
	id, err := r.s.mint.next()
	if err != nil {
		return "", err
	}
	file, size, err := r.s.blobs.Open(ctx, row.Key, from)
	if errors.Is(err, storage.ErrNotFound) || err == nil && size != row.Size {
		if err == nil {
			err = file.Close()
			return "", err
		}
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if spool, err = r.s.blobs.Spool(ctx, id, file); err != nil {
		return "", err
	}
	// What was written is compared, not what was read.
	written, size, err := r.s.blobs.Open(ctx, row.Key, spool)
	if err == nil {
		var kind storage.FindingKind
		kind, _, err = r.v.checkBytes(ctx, row, written)
		err = errors.Join(err, written.Close())
		if err == nil && kind == "" && size == row.Size {
			return spool, nil
		}
	}
	return "", errors.Join(err, r.s.blobs.Drop(context.WithoutCancel(ctx), spool))
}

// drop ends the references of a blob whose bytes are lost. What is left of it, and
// its sidecar, go to the quarantine before, and its references to the manifest.
func (r *repair) drop(ctx context.Context, item *RepairItem) (why string, err error) {
	row, unlock, err := r.faulty(ctx, item)
	if err != nil || unlock == nil {
		return notSo, err
	}
	defer unlock()
	if lost, err := r.s.isLost(ctx, item); err != nil || !lost {
		return "may be whole, but cannot be read", err
	}
	if err := r.unheld(ctx, &row); err != nil {
		return "", err
	}
	after := context.WithoutCancel(ctx)
	for _, name := range [...]string{row.Path, row.Path + sidecarSuffix} {
		if _, err := r.batch.move(after, item.line(name)); err != nil {
			return "", err
		}
	}
	for {
		ended, err := r.dropPage(after, &row)
		if err != nil {
			return "", err
		}
		stands, err := r.s.stands(after, &row)
		if err != nil || !stands {
			return "", err
		}
		if !ended { // none is listed, and the row says that there are some
			return "", fmt.Errorf("%w: blob %s has a refcount of %d, but no references are listed", storage.ErrCorrupted, row.Key, row.Refs)
		}
	}
}

// unheld is ErrHeld where a reference of a blob is held.
func (r *repair) unheld(ctx context.Context, row *storage.BlobRow) error {
	r.s.holds.mu.RLock()
	defer r.s.holds.mu.RUnlock()
	for p, err := range r.s.sharers(ctx, row) {
		if err != nil {
			return err
		}
		id, err := idOf(row, p.Ref.UUID)
		if err == nil {
			err = r.s.heldBy(&p.Ref, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropPage ends some references of a blob, and says whether there were any.
func (r *repair) dropPage(ctx context.Context, row *storage.BlobRow) (ended bool, err error) {
	var page []storage.RefPair
	for p, err := range r.s.sharers(ctx, row) {
		if err != nil {
			return false, err
		}
		if page = append(page, p); len(page) == listPage {
			break
		}
	}
	if len(page) == 0 {
		return false, nil
	}
	lines := make([]manifestLine, len(page))
	for i := range page {
		ref := &page[i].Ref
		lines[i] = manifestLine{
			Action: manifestLose, Path: row.Path, Blob: row.Key.String(), Reference: row.NameHash() + "-" + ref.UUID.String(),
			Type: ref.Type, MimeType: ref.MimeType, Metadata: &ref.Metadata, ExpiresAt: ref.ExpiresAt, Count: ref.Count,
		}
	}
	if err := r.batch.note(ctx, lines...); err != nil {
		return false, err
	}
	if err := r.s.faults.reach(ctx, faultLost); err != nil {
		return false, err
	}
	for i := range lines {
		if err := r.end(ctx, lines[i].Reference); err != nil {
			return false, err
		}
	}
	return true, nil
}

// end ends a reference like Delete, whatever it counts, but under the lock of its
// blob's key, which the caller holds.
func (r *repair) end(ctx context.Context, reference string) error {
	id, err := storage.ParseID(reference)
	if err != nil {
		return err
	}
	removal, err := r.s.endUnheld(ctx, id, time.Time{})
	switch {
	case err != nil:
		return fmt.Errorf("reference %s: %w", id, err)
	case !removal.Found:
		return nil
	}
	if err := r.s.faults.reach(ctx, faultRemoved); err != nil {
		return err
	}
	if !removal.Last {
		r.s.mirrorLocked(&removal.Blob, removalLine(id.UUID, &removal))
		return nil
	}
	u := owedUnlink{key: removal.Blob.Key, path: removal.Blob.Path}
	if err := r.s.removeFiles(ctx, u); err != nil {
		r.s.ledger.oweUnlink(u)
		return err
	}
	r.s.ledger.payUnlink(u.path)
	return nil
}
