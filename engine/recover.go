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
		if err := s.recoverStaged(ctx, file); err != nil {
			return err
		}
	}
	for _, u := range debt.Unlinks {
		if err := s.blobs.Remove(ctx, "", u.Path); err != nil {
			return err
		}
	}
	s.ledger.paid.Unlinks = debt.Unlinks
	if err := s.payMirrors(ctx, debt.Mirrors); err != nil {
		return err
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
	return s.index.Settle(ctx, paid)
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
		// Published, but perhaps not durably: Settle removes the staged name
		// after it has made the final one durable.
		s.blobs.Published(file.Key, blob.Path)
		return nil
	case err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupted):
		return err
	}
	// Bytes staged to heal a blob may not have become durable.
	if good, err := s.stagedMatches(ctx, &blob); err != nil {
		return err
	} else if !good {
		return s.blobs.Discard(ctx, file.Key)
	}
	done, err := s.blobs.Prepare(ctx, blob.Path)
	if err != nil {
		return err
	}
	err = s.blobs.Publish(ctx, file.Key, blob.Path)
	done(err == nil)
	return err
}

// stagedMatches says whether what is staged is what the row tells of.
func (s *store) stagedMatches(ctx context.Context, blob *storage.BlobRow) (bool, error) {
	f, size, err := s.blobs.OpenStaged(ctx, blob.Key)
	if err != nil {
		return false, err
	}
	if size != blob.Size {
		return false, f.Close()
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, f); err != nil {
		return false, errors.Join(err, f.Close())
	}
	return sum.Sum32() == blob.CRC, f.Close()
}
