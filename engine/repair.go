package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mediabolt/mediabolt/storage"
)

// RepairResult is what became of an item of a plan.
type RepairResult struct {
	Item   RepairItem
	Done   bool
	Batch  string // of the quarantine, that holds what was moved
	Detail string // why it was not done; empty when it was
	Err    error  // that kept it from being done; what it was about is where it was, or in the batch
}

// Repair does what a plan says, item by item, and tells what became of each. It
// runs beside live traffic: each item is looked at again right before it is
// touched, and left when it is not as the plan says any more. Nothing is deleted:
// files are moved to a batch of the quarantine, with a manifest, from where
// RestoreQuarantine brings them back. A repair that is interrupted or killed at any
// point leaves each file where it was or in the batch; another one goes on.
//
// An error ends it: ErrRefused for a plan that has a Refusal or is of another
// store, ErrInDoubt, ErrClosed, or ctx's. The loop's body must not close the store.
func (f *FileStore) Repair(ctx context.Context, plan *RepairPlan) iter.Seq2[RepairResult, error] {
	return func(yield func(RepairResult, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(RepairResult{}, err)
			return
		}
		defer leave()
		err = s.repair(ctx, plan, func(r RepairResult) bool { return yield(r, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(RepairResult{}, fmt.Errorf("repair %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
	}
}

// repairOrder is the order of actions: a copy is read before it is moved, and a
// sidecar stands beside its blob.
var repairOrder = [...]RepairAction{RepairHeal, RepairSidecar, RepairQuarantine, RepairDrop}

func (s *store) repair(ctx context.Context, plan *RepairPlan, tell func(RepairResult) bool) (err error) {
	switch {
	case plan == nil || plan.store != s.cfg.BaseDir:
		return fmt.Errorf("%w: the plan is not of this store", storage.ErrRefused)
	case plan.Refusal != nil:
		return plan.Refusal
	}
	if err := s.tidyQuarantine(ctx); err != nil {
		return err
	}
	b, err := s.newBatch()
	if err != nil {
		return err
	}
	r := &repair{s: s, opts: &plan.opts, batch: b}
	r.v = verification{ctx: ctx, s: s, opts: VerifyOptions{Depth: DepthDeep, Sample: 100}}
	defer func() { err = errors.Join(err, s.settleRepairs(context.WithoutCancel(ctx))) }()
	for _, action := range repairOrder {
		for i := range plan.Items {
			if plan.Items[i].Action != action {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			result := r.do(ctx, plan.Items[i])
			if !tell(result) {
				return errStopped
			}
			if errors.Is(result.Err, storage.ErrInDoubt) {
				return result.Err
			}
		}
	}
	return nil
}

// repair is one run of Repair.
type repair struct {
	s     *store
	opts  *RepairOptions
	batch *batch
	v     verification // looks again
}

func (r *repair) do(ctx context.Context, item RepairItem) RepairResult {
	result := RepairResult{Item: item, Batch: r.batch.name}
	switch item.Action {
	case RepairHeal:
		result.Detail, result.Err = r.heal(ctx, &item)
	case RepairSidecar:
		result.Detail, result.Err = r.sidecar(ctx, &item)
	case RepairQuarantine:
		result.Detail, result.Err = r.quarantine(ctx, &item)
	case RepairDrop:
		result.Detail, result.Err = r.drop(ctx, &item)
	}
	if result.Err != nil {
		result.Err = fmt.Errorf("%s of %s: %w", item.Action, item.Path, storage.Classify(result.Err))
	}
	result.Done = result.Detail == "" && result.Err == nil
	if result.Done {
		r.s.cfg.Logger.Info("repaired", "store", r.s.cfg.BaseDir, "action", item.Action, "path", item.Path, "batch", r.batch.name)
	}
	return result
}

// notSo is why an item is left that the store has mended meanwhile.
const notSo = "is not so any more"

// line is a line of the manifest about a file that an item moves.
func (item *RepairItem) line(path string) manifestLine {
	return manifestLine{Path: path, Blob: item.Blob, Kind: item.Kind, Detail: item.Found}
}

// quarantine moves away files that no row names.
func (r *repair) quarantine(ctx context.Context, item *RepairItem) (why string, err error) {
	id, err := fileID(item.Path)
	if err != nil {
		return "", err
	}
	unlock, err := r.s.keys.lock(ctx, storage.UUIDKey(id.UUID))
	if err != nil {
		return "", err
	}
	defer unlock()
	var files []storage.TreeFile
	for _, name := range item.Moves {
		files = append(files, storage.TreeFile{Path: name, Ours: true, Sidecar: name != item.Path, Blob: item.Path, ID: id})
	}
	if files, err = r.v.stillOrphans(files); err != nil {
		return "", err
	}
	unknown, err := r.s.forgotten(ctx, item)
	switch {
	case err != nil:
		return "", err
	case len(files) == 0:
		return notSo, nil
	case unknown > 0 && !r.opts.KnownOrphans:
		return "its sidecar tells of references that the index does not have, by now", nil
	}
	for i := range files {
		if _, err := r.batch.move(context.WithoutCancel(ctx), item.line(files[i].Path)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// sidecar writes a sidecar anew.
func (r *repair) sidecar(ctx context.Context, item *RepairItem) (why string, err error) {
	row, unlock, err := r.lockRow(ctx, item)
	if err != nil || unlock == nil {
		return notSo, err
	}
	defer unlock()
	row, fault, err := r.s.stillSidecarFault(ctx, &row)
	if err != nil || fault == "" {
		return notSo, err
	}
	after := context.WithoutCancel(ctx)
	name := row.Path + sidecarSuffix
	if _, err := r.batch.move(after, item.line(name)); err != nil {
		return "", err
	}
	if err := r.s.replaceSidecar(after, &row, true); err != nil {
		return "", err
	}
	if err := r.s.faults.reach(ctx, faultWritten); err != nil {
		return "", err
	}
	return "", r.batch.wrote(after, name, row.Key)
}

// lockRow locks the blob of an item, as long as it has its path. unlock is nil
// when it has not.
func (r *repair) lockRow(ctx context.Context, item *RepairItem) (row storage.BlobRow, unlock func(), err error) {
	key, err := storage.ParseBlobKey(item.Blob)
	if err != nil {
		return row, nil, err
	}
	if unlock, err = r.s.keys.lock(ctx, key); err != nil {
		return row, nil, err
	}
	row, err = r.s.rowOf(ctx, item)
	if err != nil {
		unlock()
		if errors.Is(err, storage.ErrNotFound) {
			err = nil
		}
		return row, nil, err
	}
	return row, unlock, nil
}
