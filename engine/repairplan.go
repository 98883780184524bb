package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// RepairAction is what a repair does about a finding; its values are stable.
type RepairAction string

const (
	// RepairNone leaves it: Detail says why, and what helps.
	RepairNone RepairAction = "none"
	// RepairHeal gives a blob its bytes back, from a copy in the store.
	RepairHeal RepairAction = "heal"
	// RepairSidecar writes a sidecar anew, from the rows that it mirrors.
	RepairSidecar RepairAction = "write_sidecar"
	// RepairQuarantine moves files away that no row names.
	RepairQuarantine RepairAction = "quarantine"
	// RepairDrop ends references whose bytes are lost.
	RepairDrop RepairAction = "drop"
)

// DefaultMaxShare is the share of a store that a repair may touch, in percent.
const DefaultMaxShare = 10

// RepairOptions say what a repair may do; the zero value moves and writes nothing
// that is not certain.
type RepairOptions struct {
	// Verify narrows the look at the store. Resume cannot be used, for all of the
	// tree has to be seen.
	Verify VerifyOptions
	// MaxShare is how much of the store the repair may touch, in percent of its
	// blobs: more than that looks like an index that is wrong. Default: 0, which
	// means DefaultMaxShare.
	MaxShare float64
	// DropLost ends references whose bytes are missing or damaged, and of which
	// there is no copy in the store. What is left of them goes to the quarantine, whose
	// manifest lists the references. Default: they stay.
	DropLost bool
	// KnownOrphans moves away orphans too whose sidecars tell of live references
	// that the index does not have. Default: they stay, for they may be what a
	// restored index has forgotten; rebuilding the index from the sidecars brings
	// them back.
	KnownOrphans bool
}

// RepairItem is what a repair does about one blob or file.
type RepairItem struct {
	Action     RepairAction        `json:"action"`
	Kind       storage.FindingKind `json:"kind"` // of what was found
	Path       string              `json:"path"` // of the blob, or of what else it is about
	Blob       string              `json:"blob,omitempty"`
	Moves      []string            `json:"moves,omitempty"` // paths that go to the quarantine, where there is something
	From       string              `json:"from,omitempty"`  // path of the copy
	References int64               `json:"references"`      // that the blob has
	Found      string              `json:"found"`           // in words
	Detail     string              `json:"detail"`          // what is done, or why nothing
}

// RepairPlan is what a repair would do. It is for the store that made it.
type RepairPlan struct {
	Items   []RepairItem
	Damage  int     // findings
	Touches int     // blobs that would be moved, written or dropped
	Share   float64 // of the store that those are, in percent
	// Refusal is why the plan is not to be carried out, ErrRefused; nil: it may be.
	Refusal error

	store string
	opts  RepairOptions
}

// PlanRepair verifies the store, and says what Repair would do about what it
// found. It changes nothing. Errors: ErrRefused when the look did not come to its
// end, and as with Verify.
func (f *FileStore) PlanRepair(ctx context.Context, opts RepairOptions) (*RepairPlan, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	plan, err := s.planRepair(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("plan repair of %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return plan, nil
}

func (s *store) planRepair(ctx context.Context, opts RepairOptions) (*RepairPlan, error) {
	switch {
	case opts.Verify.Resume != "":
		return nil, fmt.Errorf("%w: Resume: a repair has to see everything", storage.ErrInvalidQuery)
	case !(opts.MaxShare >= 0 && opts.MaxShare <= 100):
		return nil, fmt.Errorf("%w: MaxShare %v: want a percentage, from 0 to 100", storage.ErrInvalidQuery, opts.MaxShare)
	case opts.MaxShare == 0:
		opts.MaxShare = DefaultMaxShare
	}
	p := &planner{ctx: ctx, s: s, plan: &RepairPlan{store: s.cfg.BaseDir, opts: opts}, orphans: map[string]int{}, named: map[string][]string{}}
	p.v = verification{ctx: ctx, s: s, opts: opts.Verify, tell: p.take}
	if err := p.v.begin(); err != nil {
		return nil, err
	}
	err := p.v.run()
	p.v.progress()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && !errors.Is(err, errStopped):
		return nil, fmt.Errorf("%w: the look at the store did not come to its end, so what it did not see is not known: %w", storage.ErrRefused, err)
	}
	if err := p.decide(); err != nil {
		return nil, err
	}
	return p.plan, p.measure()
}

// planner makes a plan of what a verification finds.
type planner struct {
	ctx     context.Context
	s       *store
	v       verification
	plan    *RepairPlan
	orphans map[string]int      // path of a blob -> its item
	named   map[string][]string // name of a blob's file -> paths of orphans that have it
	against int                 // findings of the index against itself
}

// take makes an item of a finding, what to do about it still undecided.
func (p *planner) take(f storage.Finding) bool {
	if f.Severity != storage.SeverityDamage {
		return true
	}
	p.plan.Damage++
	item := RepairItem{Action: RepairNone, Kind: f.Kind, Path: f.Path, Blob: f.Blob, Found: f.Detail}
	switch f.Kind {
	case storage.FindingOrphan:
		item.Path = strings.TrimSuffix(f.Path, sidecarSuffix)
		if at, there := p.orphans[item.Path]; there { // the sidecar comes after its blob
			p.plan.Items[at].Moves = append(p.plan.Items[at].Moves, f.Path)
			return true
		}
		item.Moves = []string{f.Path}
		p.orphans[item.Path] = len(p.plan.Items)
		p.named[path.Base(item.Path)] = append(p.named[path.Base(item.Path)], item.Path)
	case storage.FindingSidecar:
		item.Path = strings.TrimSuffix(f.Path, sidecarSuffix)
		item.Moves = []string{f.Path}
	case storage.FindingMissing, storage.FindingSize, storage.FindingChecksum, storage.FindingUnreadable:
		item.Moves = []string{f.Path}
	case storage.FindingStaging:
		item.Detail = "the next opening of the store deals with it"
	case storage.FindingUnlink:
		item.Detail = "it is tried again at every checkpoint; the log says what is in the way"
	default:
		p.against++
		item.Detail = "the index contradicts itself: restore it from a backup, or rebuild it from the sidecars"
	}
	p.plan.Items = append(p.plan.Items, item)
	return true
}

// decide says what to do about each item.
func (p *planner) decide() error {
	for i := range p.plan.Items {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		var err error
		switch item := &p.plan.Items[i]; item.Kind {
		case storage.FindingOrphan:
			err = p.orphan(item)
		case storage.FindingSidecar:
			item.Action = RepairSidecar
			item.Detail = "is written anew from the rows; what is there goes to the quarantine"
		case storage.FindingMissing, storage.FindingSize, storage.FindingChecksum, storage.FindingUnreadable:
			err = p.damaged(item)
		}
		if err != nil {
			return err
		}
	}
	p.mergeDropped()
	return nil
}

// mergeDropped leaves out the sidecars of blobs that are dropped, which go with
// them.
func (p *planner) mergeDropped() {
	dropped := map[string]bool{}
	for i := range p.plan.Items {
		if item := &p.plan.Items[i]; item.Action == RepairDrop {
			dropped[item.Path] = true
		}
	}
	p.plan.Items = slices.DeleteFunc(p.plan.Items, func(item RepairItem) bool {
		return item.Action == RepairSidecar && dropped[item.Path]
	})
}

func (p *planner) orphan(item *RepairItem) error {
	unknown, err := p.s.forgotten(p.ctx, item)
	if err != nil {
		return err
	}
	item.References = unknown
	if unknown > 0 && !p.plan.opts.KnownOrphans {
		item.Detail = fmt.Sprintf("its sidecar tells of live references that the index does not have (%d): rebuilding the index from the sidecars brings them back, moving known orphans (--known-orphans) gives them up", unknown)
		return nil
	}
	item.Action = RepairQuarantine
	item.Detail = "goes to the quarantine"
	return nil
}

// forgotten is how many live references the sidecar of an orphan tells of that
// the index does not have. A sidecar without its blob, or one that cannot be
// read, brings nothing back.
func (s *store) forgotten(ctx context.Context, item *RepairItem) (int64, error) {
	if _, err := s.blobs.Size(ctx, item.Path); errors.Is(err, storage.ErrNotFound) {
		return 0, nil
	}
	sidecar, err := s.blobs.ReadSidecar(ctx, item.Path)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	} else if err != nil {
		return 0, nil
	}
	hash := (&storage.BlobRow{Path: item.Path}).NameHash()
	n := int64(0)
	for u := range sidecar.Live() {
		id, err := storage.ParseID(hash + "-" + u.String())
		if err != nil {
			return 0, err
		}
		if _, _, err := s.index.Ref(ctx, id); errors.Is(err, storage.ErrNotFound) {
			n++
		} else if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// damaged decides about a blob whose bytes are missing or damaged.
func (p *planner) damaged(item *RepairItem) error {
	row, err := p.s.rowOf(p.ctx, item)
	if errors.Is(err, storage.ErrNotFound) {
		item.Detail = "has been deleted meanwhile"
		return nil
	} else if err != nil {
		return err
	}
	item.References = row.Refs
	if item.From, err = p.copyOf(&row); err != nil {
		return err
	}
	lost, err := p.s.isLost(p.ctx, item)
	switch {
	case err != nil:
		return err
	case item.From != "":
		item.Action = RepairHeal
		item.Detail = "gets the bytes of a copy; what is there goes to the quarantine"
	case !lost:
		item.Detail = "may be whole: see to it that it can be read"
	case p.plan.opts.DropLost:
		item.Action = RepairDrop
		item.Moves = append(item.Moves, item.Path+sidecarSuffix)
		item.Detail = fmt.Sprintf("its references are ended (%d), and listed in the quarantine with what is left", row.Refs)
	default:
		item.Detail = fmt.Sprintf("the bytes of its references are lost (%d): store the same bytes again, restore the file from a backup, or give up what is lost (--drop-lost)", row.Refs)
	}
	return nil
}

// rowOf is the row of the blob that an item is about, while it has its path.
func (s *store) rowOf(ctx context.Context, item *RepairItem) (storage.BlobRow, error) {
	key, err := storage.ParseBlobKey(item.Blob)
	if err != nil {
		return storage.BlobRow{}, err
	}
	row, err := s.index.Blob(ctx, key)
	if err == nil && row.Path != item.Path {
		return row, fmt.Errorf("%w: blob %s has moved to %s", storage.ErrNotFound, key, row.Path)
	}
	return row, err
}

// isLost says whether a blob's bytes are not to be had: not where the system
// keeps them from being read.
func (s *store) isLost(ctx context.Context, item *RepairItem) (bool, error) {
	if item.Kind != storage.FindingUnreadable {
		return true, nil
	}
	_, err := s.blobs.Size(ctx, item.Path)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return errors.Is(err, storage.ErrCorrupted) || errors.Is(err, storage.ErrNotFound), nil
}

// copyOf is the path of a file that has the bytes of a blob: an orphan of its
// name, as when a directory was renamed, or another blob of its digest. Empty:
// there is none.
func (p *planner) copyOf(row *storage.BlobRow) (string, error) {
	for _, name := range p.named[path.Base(row.Path)] {
		if good, err := p.s.hasBytes(p.ctx, row, name); err != nil {
			return "", err
		} else if good {
			return name, nil
		}
	}
	if row.Digest.IsZero() {
		return "", nil
	}
	filter, after := storage.RefFilter{Digest: row.Digest}, storage.UUID{}
	for more := true; more; {
		var page []storage.RefPair
		var err error
		if page, after, more, err = p.s.index.Refs(p.ctx, filter, after, listPage); err != nil {
			return "", err
		}
		for i := range page {
			other := &page[i].Blob
			if other.Key == row.Key {
				continue
			}
			if good, err := p.s.hasBytes(p.ctx, row, other.Path); err != nil {
				return "", err
			} else if good {
				return other.Path, nil
			}
		}
	}
	return "", nil
}

// hasBytes says whether the file at a path has the bytes of a row. One that cannot be
// read has not.
func (s *store) hasBytes(ctx context.Context, row *storage.BlobRow, name string) (bool, error) {
	file, size, err := s.blobs.Open(ctx, row.Key, name)
	if err == nil {
		var good bool
		if good, err = matches(contextFile{file, ctx}, size, row); err == nil {
			return good, nil
		}
	}
	return false, ctx.Err()
}

// contextFile ends reads with their context.
type contextFile struct {
	storage.File
	ctx context.Context
}

func (c contextFile) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.File.Read(p)
}

// measure says how much of the store the plan would touch, and refuses it where
// that or the index looks wrong.
func (p *planner) measure() error {
	counters, err := p.s.index.Counters(p.ctx) // what was stored since the beginning counts
	if err != nil {
		return err
	}
	blobs := max(counters.Blobs, p.v.counters.Blobs)
	touched := map[string]bool{}
	for i := range p.plan.Items {
		if item := &p.plan.Items[i]; item.Action != RepairNone {
			touched[item.Path] = true
		}
	}
	p.plan.Touches = len(touched)
	p.plan.Share = 100 * float64(len(touched)) / float64(max(1, blobs+int64(len(p.orphans))))
	refuse := func(format string, args ...any) {
		p.plan.Refusal = fmt.Errorf("%w: "+format, append([]any{storage.ErrRefused}, args...)...)
	}
	switch {
	case p.against > 0:
		refuse("the index is damaged or contradicts itself (findings: %d), so nothing it says of files is relied upon: restore it from a backup, or rebuild it from the sidecars", p.against)
	case blobs == 0 && p.v.ours > 0:
		refuse("the index has no blobs, but the tree has files of blobs (%d): it is new or empty; rebuild it from the sidecars, or restore it from a backup", p.v.ours)
	case blobs > 0 && p.v.ours > 0 && p.v.nobodys == p.v.ours:
		refuse("not one of the files of blobs in the tree (%d) belongs to a row of the index, which has others (%d): it is another store's; restore the right one from a backup, or rebuild it from the sidecars", p.v.ours, blobs)
	case p.plan.Share > p.plan.opts.MaxShare:
		refuse("it would touch %d blobs, %.1f %% of the store, and may touch %v %%: look whether the findings can be true, then allow more (--max-share)", p.plan.Touches, p.plan.Share, p.plan.opts.MaxShare)
	}
	return nil
}
