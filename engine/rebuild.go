package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// RebuildOptions say how thorough a Rebuild is, and who hears of it. The zero
// value trusts the sidecars' word for what the bytes are.
type RebuildOptions struct {
	// Deep reads every blob and compares it with its sidecar.
	Deep bool
	// Progress is told, now and then, how far it has come. Found is told of
	// everything that is not as it should be, and of what was adopted (a notice).
	// Neither is called twice at a time, and neither may use the store.
	Progress func(RebuildProgress)
	Found    func(storage.Finding)
}

// RebuildStep is a part of a Rebuild; its values are stable.
type RebuildStep string

const (
	RebuildCount   RebuildStep = "count"   // how many blobs there are, which only Progress wants to know
	RebuildRestore RebuildStep = "restore" // blobs and references into the new index
	RebuildCheck   RebuildStep = "check"   // of the new index against the tree
)

// RebuildProgress is how far a Rebuild has come.
type RebuildProgress struct {
	Step              RebuildStep
	Blobs, References int64 // in the new index
	// Done is how many blobs the step is done for, of Total; a Total of 0 is not known.
	Done, Total int64
	Elapsed     time.Duration
}

// PerSecond is the rate in references per second.
func (p RebuildProgress) PerSecond() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.References) / p.Elapsed.Seconds()
}

// Rebuilt is what came of a Rebuild.
type Rebuilt struct {
	Blobs, References int64
	// Recovered is the references that no sidecar told of, but the old index or
	// its log.
	Recovered int64
	// Adopted is the references that only the bytes tell of: their sidecar is
	// missing or says nothing of them.
	Adopted int64
	// Damaged is the findings of SeverityDamage.
	Damaged int64
	// Foreign is the files that are not of a store.
	Foreign int64
	// SetAside is where the old index is now, relative to the base directory;
	// empty if there was none.
	SetAside string
	Elapsed  time.Duration
}

// wayOut is what helps where an index cannot be used.
const wayOut = "'mediabolt rebuild' (FileStoreConfig.RebuildIndex) makes a new one from the files and their sidecars, or restore it from a backup"

// Rebuild makes the index of the store in config.BaseDir anew, from the files and
// their sidecars, and puts it in place of the one that is there, if any, which is
// set aside. The tree is left as it is. Nobody may have the store open. Rebuild can
// be killed at any point: the old index stays until the new one is whole and was
// checked against the tree, and from then on the next opening goes on.
//
// What comes back is every reference that a sidecar tells of, as it was stored; and
// what sidecars do not have yet, as far as the old index or its log can still be
// read. A blob without a sidecar is adopted: one reference with the ID that its
// file is named after, the IDs of its directories, and a MIME type that is sniffed.
// What is lost for certain is when blobs were last read. Without the old index and
// its log, and after a crash, so are the references of the last second before it to
// blobs that others share, and deletions of that time are undone.
//
// A file that is missing or damaged does not end a Rebuild: its references are
// restored, and reported by Found. Errors: ErrInvalidConfig, ErrNoStore, ErrLocked,
// ErrVersion, ErrPermission, ErrDiskSpace, ErrIO, ErrCorrupted where the new index
// does not agree with the tree, or ctx's. After an error the old index is in place.
func Rebuild(ctx context.Context, config FileStoreConfig, opts RebuildOptions) (Rebuilt, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild index: %w", err)
	}
	r := &rebuilding{
		s: &store{cfg: cfg, faults: cfg.faults, watch: newObserver(&cfg)}, opts: opts, begun: time.Now(), seen: map[storage.BlobKey]struct{}{},
	}
	err = r.run(ctx)
	if err := errors.Join(err, r.close()); err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild index of %s: %w", cfg.BaseDir, storage.Classify(err))
	}
	cfg.Logger.Info("rebuilt the index", "store", cfg.BaseDir, "references", r.result.References, "blobs", r.result.Blobs,
		"recovered", r.result.Recovered, "adopted", r.result.Adopted, "damaged", r.result.Damaged, "old", r.result.SetAside)
	return r.result, nil
}

// openOrRebuild opens a store, and where its index is lost or damaged rebuilds that
// first if the configuration says so.
func openOrRebuild(ctx context.Context, config FileStoreConfig) (*store, error) {
	s, err := openStore(ctx, config)
	if !config.RebuildIndex || !errors.Is(err, storage.ErrCorrupted) {
		return s, err
	}
	log := config.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log.Warn("the index cannot be used and is rebuilt", "store", config.BaseDir, "error", err)
	_, failed := Rebuild(ctx, config, RebuildOptions{Found: func(f storage.Finding) {
		log.Warn("found by the rebuild", "store", config.BaseDir, "kind", f.Kind, "path", f.Path, "detail", f.Detail)
	}})
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return openStore(ctx, config)
}

// rebuilding is one Rebuild. It uses the parts of a store that is not opened: its
// index is the new one.
type rebuilding struct {
	s       *store
	opts    RebuildOptions
	begun   time.Time
	old     Index // nil where it cannot be opened
	remains *remains
	newRoot *os.Root // of the new index
	// inStaging is what is staged; nobody changes it.
	inStaging []storage.StagedFile

	mu     sync.Mutex // guards the rest
	far    RebuildProgress
	result Rebuilt
	seen   map[storage.BlobKey]struct{} // of remains.blobs
	paid   []storage.Mirror
	kept   int // files that were to be made durable
	// bare is set when nothing but the file itself tells of one; bareOnly while those
	// are restored, after the others.
	bare     atomic.Bool
	bareOnly bool
	shown    time.Time // last call of Progress
	// Of the newest blob, whose mode is the store's.
	newest storage.UUID
	mode   storage.OrganizationMode
	// What the check is to find: rows whose file is not of the right size, files
	// of blobs that no row names, and the sums.
	odd, unnamed int64
	sum          storage.Counters
}

func (r *rebuilding) run(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	if err := r.openNew(ctx, true); err != nil {
		return err
	}
	for _, step := range [...]func(context.Context) error{r.total, r.tree, r.unseen, r.staged, r.settle} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	// Once more, as it will be opened from now on.
	if err := r.closeNew(); err != nil {
		return err
	}
	if err := r.openNew(ctx, false); err != nil {
		return err
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	return r.replace(ctx)
}

// open takes hold of a store as far as it can be opened without an index.
func (r *rebuilding) open(ctx context.Context) error {
	s := r.s
	if _, err := os.Stat(s.cfg.BaseDir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not there", storage.ErrNoStore, s.cfg.BaseDir)
	}
	_, err := os.Stat(filepath.Join(s.cfg.BaseDir, blobs.ControlDir))
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		some, err := blobs.Some(ctx, s.cfg.BaseDir)
		if err != nil {
			return err
		}
		if !some {
			return fmt.Errorf("%w: %s has neither a directory %s nor files of a store", storage.ErrNoStore, s.cfg.BaseDir, blobs.ControlDir)
		}
	}
	s.cfg.NoCreate = !fresh
	if err := s.openDirs(); err != nil {
		return err
	}
	if s.guard, err = takeGuard(ctx, s.ctl, true, s.cfg.LockTimeout); err != nil {
		return err
	}
	if err := s.finishReplacements(ctx); err != nil {
		return err
	}
	if err := r.openOld(ctx); err != nil {
		return err
	}
	if err := s.openTree(); err != nil {
		return err
	}
	if r.inStaging, err = s.blobs.Staged(ctx); err != nil {
		return err
	}
	return r.remains.readFormer(ctx, s.blobs)
}

// openOld opens the old index, which keeps it from others, and asks it what the
// tree does not show.
func (r *rebuilding) openOld(ctx context.Context) (err error) {
	var why error
	r.old, err = r.s.cfg.OpenIndex(ctx, r.indexConfig(r.s.ctl))
	switch {
	case err == nil:
		r.remains, why, err = remainsOf(ctx, r.old)
		if err != nil {
			return err
		}
		if why != nil {
			r.report(storage.Finding{Kind: storage.FindingIndex, Severity: storage.SeverityNotice,
				Detail: "the old index cannot tell all that sidecars lack: " + why.Error()})
		}
		return nil
	case ctx.Err() != nil, errors.Is(err, storage.ErrLocked), errors.Is(err, storage.ErrVersion),
		errors.Is(err, storage.ErrPermission), errors.Is(err, storage.ErrDiskSpace):
		return err
	}
	r.old = nil
	if r.s.cfg.salvage == nil {
		r.remains = newRemains()
		return nil
	}
	if r.remains, err = r.s.cfg.salvage(r.s.ctl); err != nil {
		r.remains = newRemains()
		r.report(storage.Finding{Kind: storage.FindingIndex, Severity: storage.SeverityNotice,
			Detail: "changes of the last seconds that sidecars lack are lost: " + err.Error()})
	}
	return nil
}

func (r *rebuilding) indexConfig(root *os.Root) IndexConfig {
	cfg := &r.s.cfg
	return IndexConfig{
		Root: root, NoSync: cfg.Sync == SyncNone, LockTimeout: cfg.LockTimeout, FileMode: cfg.FileMode, Logger: cfg.Logger,
		Sync: func([]storage.BlobKey) error { return nil }, // what is in the tree is not staged
	}
}

// openNew opens the new index: one to be filled, which is synced when it is whole,
// or that one as a store opens it.
func (r *rebuilding) openNew(ctx context.Context, fill bool) (err error) {
	if fill {
		if err := r.s.ctl.Mkdir(unfinishedDir, r.s.cfg.DirMode); err != nil {
			return err
		}
	}
	if r.newRoot, err = r.s.ctl.OpenRoot(unfinishedDir); err != nil {
		return err
	}
	config := r.indexConfig(r.newRoot)
	config.Create, config.Organization = fill, r.organization()
	config.NoSync = true
	r.s.index, err = r.s.cfg.OpenIndex(ctx, config)
	if err != nil {
		r.s.index = nil
	}
	return err
}

// organization is the mode of the store: the one asked for, that of the old index,
// or that of the newest blob.
func (r *rebuilding) organization() storage.OrganizationMode {
	switch {
	case r.s.cfg.Organization != "":
		return r.s.cfg.Organization
	case r.old != nil:
		return r.old.Organization()
	}
	return r.mode
}

func (r *rebuilding) closeNew() error {
	var err error
	if r.s.index != nil {
		err = r.s.index.Close()
		r.s.index = nil
	}
	if r.newRoot != nil {
		err = errors.Join(err, r.newRoot.Close())
		r.newRoot = nil
	}
	return err
}

// replace puts the new index in place of the old one.
func (r *rebuilding) replace(ctx context.Context) error {
	if err := errors.Join(r.closeNew(), r.closeOld()); err != nil {
		return err
	}
	// From here on it would be the next opening that goes on.
	ctx = context.WithoutCancel(ctx)
	p := &replacement{ctl: r.s.ctl, noSync: r.s.cfg.Sync == SyncNone, faults: r.s.faults, log: r.s.cfg.Logger}
	if err := p.begin(ctx); err != nil {
		return err
	}
	if err := p.finish(ctx); err != nil {
		return err
	}
	if _, err := r.s.ctl.Lstat(p.setAside()); err == nil {
		r.result.SetAside = blobs.ControlDir + "/" + p.setAside()
	}
	r.result.Elapsed = time.Since(r.begun)
	return nil
}

// closeOld closes the old index. What it cannot write down any more is in the new
// one.
func (r *rebuilding) closeOld() error {
	if r.old == nil {
		return nil
	}
	err := r.old.Close()
	r.old = nil
	if err != nil {
		r.s.cfg.Logger.Warn("the old index did not close well", "store", r.s.cfg.BaseDir, "error", err)
	}
	return nil
}

// close lets go of everything. What was not finished is of no use.
func (r *rebuilding) close() error {
	err := errors.Join(r.closeNew(), r.closeOld())
	if r.s.guard != nil {
		err = errors.Join(err, r.s.ctl.RemoveAll(unfinishedDir))
	}
	return errors.Join(err, r.s.closeParts())
}

// report tells of something that is not as it should be.
func (r *rebuilding) report(f storage.Finding) {
	if f.Severity == "" {
		f.Severity = storage.SeverityDamage
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.Severity == storage.SeverityDamage {
		r.result.Damaged++
	}
	if r.opts.Found != nil {
		r.opts.Found(f)
	}
}

// count adds to the sums what a blob brought, and tells of the progress.
func (r *rebuilding) count(row *storage.BlobRow, refs []storage.RefRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Blobs++
	r.sum.PhysicalBytes += row.Size
	for i := range refs {
		r.sum.CountRef(&refs[i].Metadata, row.Size, 1)
	}
	r.result.Blobs, r.result.References = r.sum.Blobs, r.sum.Refs
	if founder, ok := row.Founder(); ok && string(founder[:]) > string(r.newest[:]) {
		r.newest, r.mode = founder, row.Organization
	}
	r.far.Done = r.sum.Blobs
	r.progress(false)
}
