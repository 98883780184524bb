package engine

import (
	"context"
	"time"
)

// progressInterval is the least time between two calls of Progress within a step.
const progressInterval = 100 * time.Millisecond

// total counts the blobs of the tree, where somebody wants to know how many there are:
// a walk that opens no file, against the three of a rebuild of which one opens them all.
func (r *rebuilding) total(ctx context.Context) error {
	if r.opts.Progress == nil {
		return nil
	}
	r.begin(RebuildCount, 0)
	blobs := int64(0)
	for file, err := range r.s.blobs.Files(ctx) {
		if err != nil {
			return err
		}
		if file.Ours && !file.Sidecar {
			blobs++
			r.done(blobs)
		}
	}
	r.begin(RebuildRestore, blobs)
	return nil
}

// begin tells that a step begins, and what the one before has come to.
func (r *rebuilding) begin(step RebuildStep, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.far.Step != "" {
		r.progress(true)
	}
	r.far.Step, r.far.Done, r.far.Total = step, 0, total
	r.progress(true)
}

// done tells now and then for how many blobs the step is done.
func (r *rebuilding) done(blobs int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.far.Done = blobs
	r.progress(false)
}

// progress tells of how far it is, at once or if the last time is long ago. The caller
// holds mu.
func (r *rebuilding) progress(atOnce bool) {
	if r.opts.Progress == nil || !atOnce && time.Since(r.shown) < progressInterval {
		return
	}
	r.shown = time.Now()
	r.far.Blobs, r.far.References, r.far.Elapsed = r.sum.Blobs, r.sum.Refs, time.Since(r.begun)
	if r.far.Total > 0 { // blobs whose files are missing were not counted
		r.far.Total = max(r.far.Total, r.far.Done)
	}
	r.opts.Progress(r.far)
}
