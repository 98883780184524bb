package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// CompactOptions say how to compact.
type CompactOptions struct {
	// DryRun changes nothing and answers what there is to gain, and what room it needs.
	DryRun bool
	// Progress is told now and then how many bytes of how many are copied; nil: nobody
	// is. It is called from one goroutine at a time, and must not take long.
	Progress func(done, total int64)
}

// compacter is an index whose files can be made smaller. With dry it only says what
// there is to gain.
type compacter interface {
	Compact(ctx context.Context, dry bool, progress func(done, total int64)) (storage.Compaction, error)
}

// Compact makes the file of the index as small as what it holds allows, beside all
// other use of the store, and crash-safe like it. What was deleted before it was called
// is in none of the index's files afterwards, its log included, except for what
// the tree still has of it and could not be removed. (A disk may keep bytes that no file
// has any more.) It needs room for a second file meanwhile. After an error the index is as
// it was. Errors: ErrDiskSpace, naming what it needs and what is free, ErrCorrupted where
// the index is damaged, errors.ErrUnsupported where the index cannot be compacted, ErrIO,
// ErrClosed, or ctx's.
func (f *FileStore) Compact(ctx context.Context, options CompactOptions) (storage.Compaction, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return storage.Compaction{}, err
	}
	defer leave()
	x, ok := s.cuts.Index.(compacter)
	if !ok {
		return storage.Compaction{}, fmt.Errorf("compact %s: %w: its index (%T) cannot be", s.cfg.BaseDir, errors.ErrUnsupported, s.cuts.Index)
	}
	if !options.DryRun {
		// The debt of what was deleted names it as well.
		if err := s.checkpoint(ctx, true); err != nil {
			return storage.Compaction{}, fmt.Errorf("compact %s: %w", s.cfg.BaseDir, storage.Classify(err))
		}
	}
	done, err := x.Compact(ctx, options.DryRun, options.Progress)
	if err == nil && !options.DryRun {
		s.watch.compacted(done)
	}
	return done, err
}
