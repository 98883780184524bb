package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// ReorganizeOptions say how to reorganize.
type ReorganizeOptions struct {
	// To is the mode for a dry run. Default: the store's own, which is also that of
	// every other run.
	To storage.OrganizationMode
	// DryRun moves nothing and answers what would be.
	DryRun bool
	// Progress is told now and then how far it has come, with the number of all blobs
	// as they were at the beginning; nil: nobody is. It is called from one goroutine
	// at a time, and must not take long.
	Progress func(done Reorganization, blobs int64)
}

// Reorganization is what Reorganize has done, or would do.
type Reorganization struct {
	To     storage.OrganizationMode `json:"to"`
	Blobs  int64                    `json:"blobs"`  // that were looked at
	Moved  int64                    `json:"moved"`  // blobs
	Bytes  int64                    `json:"bytes"`  // sizes of those that were moved
	Failed int64                    `json:"failed"` // blobs that have their old paths
	// Failures say why; not more than MaxReorganizeFailures of them.
	Failures []MoveFailure `json:"failures,omitempty"`
}

// MaxReorganizeFailures bounds Reorganization.Failures.
const MaxReorganizeFailures = 1000

// MoveFailure is a blob that was not moved.
type MoveFailure struct {
	Path   string `json:"path"`
	Err    error  `json:"-"`
	Reason string `json:"reason"` // the text of Err
}

// Reorganize gives every blob that has the path of another organization mode than the
// store's own (FileStoreConfig.Organization) one of that, beside all other use of the
// store: each blob is at its old path or its new one, whatever happens, and can be
// read all the while. It names a blob's directories after the reference that brought
// the bytes or, when that has ended, the oldest other. Called again it goes on where
// it was. Errors: those that ended it, ErrDiskSpace, ErrPermission, ErrIO, ErrClosed,
// or ctx's. A blob that is damaged is told of as a failure and stays.
func (f *FileStore) Reorganize(ctx context.Context, options ReorganizeOptions) (Reorganization, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Reorganization{}, err
	}
	defer leave()
	defer s.watch.tellCommits()
	r := reorganizing{s: s, options: options, Reorganization: Reorganization{To: s.cfg.Organization}}
	if to := options.To; to != "" && to != r.To {
		if err := to.Validate(); err != nil {
			return r.Reorganization, err
		}
		if !options.DryRun {
			return r.Reorganization, fmt.Errorf("%w: reorganize %s to %s: it is open as %s: set FileStoreConfig.Organization",
				storage.ErrInvalidConfig, s.cfg.BaseDir, to, r.To)
		}
		r.To = to
	}
	if err := r.run(ctx); err != nil {
		return r.Reorganization, fmt.Errorf("reorganize %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return r.Reorganization, nil
}

// reorganizing is a Reorganize under way.
type reorganizing struct {
	s       *store
	options ReorganizeOptions
	Reorganization
}

func (r *reorganizing) run(ctx context.Context) error {
	counters, err := r.s.index.Counters(ctx)
	if err != nil {
		return err
	}
	var after storage.BlobKey
	for {
		page, err := r.s.index.Blobs(ctx, after, maxMoves)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].Key
		r.Blobs += int64(len(page))
		page = slices.DeleteFunc(page, func(b storage.BlobRow) bool { return b.Organization == r.To })
		if err := r.page(ctx, page); err != nil {
			return err
		}
		if r.options.Progress != nil {
			r.options.Progress(r.Reorganization, counters.Blobs)
		}
	}
}

func (r *reorganizing) page(ctx context.Context, page []storage.BlobRow) error {
	if len(page) == 0 {
		return nil
	}
	if r.options.DryRun {
		for i := range page {
			r.Moved++
			r.Bytes += page[i].Size
		}
		return nil
	}
	// An erasure must not meet a blob on its way to the directory of one that ends.
	leave, err := r.s.erasures.alone(ctx)
	if err != nil {
		return err
	}
	defer leave()
	// A path may be one that a blob had before: what is still owed of that is done
	// before it is used again, or another one is used.
	if err := r.s.checkpoint(ctx, true); err != nil {
		return err
	}
	debt, err := r.s.index.Debt(ctx)
	if err != nil {
		return err
	}
	var list []relocation
	var sizes []int64
	for i := range page {
		to, err := r.target(ctx, &page[i], debt.Unlinks)
		if errors.Is(err, errTaken) {
			r.fail(page[i].Path, err)
			continue
		} else if err != nil {
			return err
		}
		if to != "" {
			list = append(list, relocation{key: page[i].Key, from: page[i].Path, to: to, mode: r.To})
			sizes = append(sizes, page[i].Size)
		}
	}
	for i, err := range r.s.move(ctx, list) {
		switch {
		case err == nil:
			r.Moved++
			r.Bytes += sizes[i]
		case errors.Is(err, storage.ErrCorrupted):
			r.fail(list[i].from, err)
		default:
			return err
		}
	}
	return nil
}

func (r *reorganizing) fail(path string, err error) {
	if r.Failed++; len(r.Failures) < MaxReorganizeFailures {
		r.Failures = append(r.Failures, MoveFailure{Path: path, Err: err, Reason: err.Error()})
	}
}

// errTaken is why a blob that is not shared stays: it is found by its name.
var errTaken = errors.New("something is at the path that it is to have")

// target is the path that a blob is to have, empty where it is gone: its name in
// another directory, unless something is there, or may still be removed from there.
func (r *reorganizing) target(ctx context.Context, blob *storage.BlobRow, owed []storage.Unlink) (string, error) {
	founder, err := r.founder(ctx, blob)
	if founder == nil || err != nil {
		return "", err
	}
	dir := blobs.Dir(r.To, &founder.Metadata)
	to := path.Join(dir, path.Base(blob.Path))
	if _, err := r.s.blobs.Size(ctx, to); errors.Is(err, storage.ErrNotFound) && !slices.Contains(owed, storage.Unlink{Path: to}) {
		return to, nil
	} else if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if _, own := blob.Key.UUID(); own {
		return "", fmt.Errorf("%w: %w: %s", storage.ErrIO, errTaken, to)
	}
	return r.s.newPath(blob, dir)
}

// founder is the reference that a blob's file is named after or, where that has ended,
// the oldest other one; nil where there is none.
func (r *reorganizing) founder(ctx context.Context, blob *storage.BlobRow) (*storage.RefRow, error) {
	if u, named := blob.Founder(); named {
		id, err := storage.ParseID(blob.NameHash() + "-" + u.String())
		if err != nil {
			return nil, err
		}
		ref, row, err := r.s.index.Ref(ctx, id)
		if err == nil && row.Key == blob.Key {
			return &ref, nil
		} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
	}
	for p, err := range r.s.sharers(ctx, blob) {
		if err != nil {
			return nil, err
		}
		return &p.Ref, nil
	}
	return nil, nil
}
