package engine

import (
	"context"
	"errors"
	"hash/crc32"
	"io"

	"github.com/mediabolt/mediabolt/storage"
)

// recover finishes what was under way when the store was last open: it goes
// through staging and the index's debt, both of which hold what happened since
// the last checkpoint only. It can itself be interrupted at any point.
func (s *store) recover(ctx context.Context) error {
	debt, err := s.index.Debt(ctx)
	if err != nil {
		return err
	}
	staged, err := s.blobs.Staged(ctx)
	if err != nil {
		return err
	}
	for _, file := range staged {
		switch err := s.recoverStaged(ctx, file); {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, storage.ErrCorrupted):
			return err
		default:
			// Reads find what is staged, and a later opening tries again.
			s.cfg.Logger.Warn("a staged file stays for now", "store", s.cfg.BaseDir, "path", file.Path, "error", err)
		}
	}
	for _, u := range debt.Unlinks {
		err := s.blobs.Remove(ctx, "", u.Path)
		switch {
		case err == nil:
			s.ledger.paid.Unlinks = append(s.ledger.paid.Unlinks, u)
		case ctx.Err() != nil:
			return err
		default:
			s.cfg.Logger.Warn("file of a deleted blob stays for now", "store", s.cfg.BaseDir, "path", u.Path, "error", err)
			s.ledger.oweUnlink(owedUnlink{path: u.Path})
		}
	}
	switch err := s.payMirrors(ctx, debt.Mirrors); {
	case err == nil:
	case ctx.Err() != nil:
		return err
	default:
		s.cfg.Logger.Warn("sidecars lack lines for now", "store", s.cfg.BaseDir, "error", err)
	}
	if len(staged)+len(debt.Unlinks)+len(debt.Mirrors) == 0 {
		return nil
	}
	s.cfg.Logger.Info("recovered", "store", s.cfg.BaseDir,
		"staged", len(staged), "unlinks", len(debt.Unlinks), "sidecar_lines", len(debt.Mirrors))
	if err := s.blobs.Settle(ctx); err != nil {
		return err
	}
	paid := s.ledger.paid
	s.ledger.paid = storage.Debt{}
	err = s.index.Settle(ctx, paid)
	if err != nil && ctx.Err() == nil {
		// What was paid stays so; the debt is dropped at some checkpoint.
		s.cfg.Logger.Warn("debt stays for now", "store", s.cfg.BaseDir, "error", err)
		s.ledger.paid = paid
		return nil
	}
	return err
}

// recoverStaged publishes a staged file whose row was committed, and removes
// every other.
func (s *store) recoverStaged(ctx context.Context, file storage.StagedFile) error {
	switch {
	case file.Spool:
		return s.blobs.Drop(ctx, file.Path)
	case file.Key == "":
		s.cfg.Logger.Warn("a file in staging that is not of this program stays", "store", s.cfg.BaseDir, "path", file.Path)
		return nil
	}
	blob, err := s.index.Blob(ctx, file.Key)
	if errors.Is(err, storage.ErrNotFound) {
		return s.blobs.Discard(ctx, file.Key)
	} else if err != nil {
		return err
	}
	size, err := s.blobs.Size(ctx, blob.Path)
	switch {
	case err == nil && size == blob.Size:
		keep, err := s.keepsFinal(ctx, &blob)
		if err != nil {
			return err
		}
		if keep {
			// Published, but perhaps not durably: Settle removes the staged
			// name after it has made the final one durable.
			s.blobs.Published(file.Key, blob.Path)
			return nil
		}
	case err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupted):
		return err
	}
	// Bytes staged to heal a blob may not have become durable.
	if good, err := s.stagedMatches(ctx, &blob); err != nil {
		return err
	} else if !good {
		s.cfg.Logger.Warn("a staged file is not what its row says and goes", "store", s.cfg.BaseDir, "path", file.Path, "blob", blob.Path)
		return s.blobs.Discard(ctx, file.Key)
	}
	return s.publish(ctx, &blob)
}

// keepsFinal says whether the file at the path of a row, which has its size, is to
// stay, whatever is staged. It is not where the bytes were staged to heal it: a
// file that was cut short can have its size back after a power cut.
func (s *store) keepsFinal(ctx context.Context, blob *storage.BlobRow) (bool, error) {
	same, err := s.blobs.Linked(ctx, blob.Key, blob.Path)
	if same || err != nil {
		return same, err
	}
	f, size, err := s.blobs.Open(ctx, blob.Key, blob.Path)
	if err != nil {
		return false, err
	}
	return matches(f, size, blob)
}

// publish publishes what is staged for a row.
func (s *store) publish(ctx context.Context, blob *storage.BlobRow) error {
	done, err := s.blobs.Prepare(ctx, blob.Path)
	if err != nil {
		return err
	}
	err = s.blobs.Publish(ctx, blob.Key, blob.Path)
	done(err == nil)
	return err
}

// stagedMatches says whether what is staged is what the row tells of, and then
// makes it durable.
func (s *store) stagedMatches(ctx context.Context, blob *storage.BlobRow) (bool, error) {
	f, size, err := s.blobs.OpenStaged(ctx, blob.Key)
	if err != nil {
		return false, err
	}
	good, err := matches(f, size, blob)
	if err != nil || !good {
		return false, err
	}
	// They may be right in memory alone, after a killed healing.
	return true, s.blobs.Sync(ctx, blob.Key)
}

// matches says whether a file is what the row tells of, and closes it.
func matches(f storage.File, size int64, blob *storage.BlobRow) (bool, error) {
	if size != blob.Size {
		return false, f.Close()
	}
	sum := crc32.New(castagnoli)
	_, err := io.Copy(sum, f)
	err = errors.Join(err, f.Close())
	return err == nil && sum.Sum32() == blob.CRC, err
}
