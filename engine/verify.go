package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// VerifyDepth says how closely a Verify looks at the bytes of blobs. Everything
// else is checked at every depth.
type VerifyDepth string

const (
	DepthQuick    VerifyDepth = "quick"    // sizes alone
	DepthChecksum VerifyDepth = "checksum" // their CRC-32C, which every read checks too
	DepthDeep     VerifyDepth = "deep"     // their SHA-256 as well, where it is known
)

// VerifyOptions narrow a Verify; the zero value reads everything.
type VerifyOptions struct {
	// Depth of the look at bytes. Default: DepthChecksum.
	Depth VerifyDepth
	// Rate bounds what is read of blobs, in bytes per second. Default: 0, no
	// bound.
	Rate int64
	// Sample is the share of blobs whose bytes are read, in percent; of the others
	// the sizes are compared. Default: 0, which means 100, all of them.
	Sample float64
	// Seed says which blobs are in a sample: always the same with the same Seed.
	Seed uint64
	// Resume goes on where an earlier Verify stopped, and leaves out the walk of
	// the tree that it has done. Depth, Sample and Seed are the earlier one's:
	// they stay zero, or are the same.
	Resume VerifyPosition
	// Workers is how many blobs are looked at at a time. Default: the number of
	// processors, 8 at most.
	Workers int
	// Progress is told, now and then and at the end, how far it is. It is called by
	// the goroutine of the loop, and must not call the store.
	Progress func(VerifyProgress)
}

// maxVerifyWorkers is the most workers that a Verify takes by itself: it runs
// beside what the store is there for.
const maxVerifyWorkers = 8

// VerifyStep is what a Verify is about.
type VerifyStep string

const (
	VerifyIndex VerifyStep = "index" // against itself
	VerifyTree  VerifyStep = "tree"  // against the rows
	VerifyBlobs VerifyStep = "blobs" // files and sidecars of rows
)

// VerifyProgress is how far a Verify is. Numbers of blobs and bytes are those
// since the beginning, also after a Resume.
type VerifyProgress struct {
	Step              VerifyStep
	Files             int64 // of the tree, looked at
	Blobs, TotalBlobs int64 // looked at, of about how many
	Bytes, TotalBytes int64 // of blobs read, of about how many
	// Depth, Sample and Seed are those of the options, or of what was resumed.
	Depth  VerifyDepth
	Sample float64
	Seed   uint64
	// Position is where a later Verify goes on; empty: at the beginning.
	Position VerifyPosition
}

// Verify checks that every promise holds now: the index against itself, every
// row against its file and sidecar, every file against the rows, and that
// nothing is left over. It runs beside live traffic, and reports of what
// changed meanwhile only what is so when it is looked at again. It ends with an
// error when it cannot go on: ErrInvalidQuery for options, ErrCorrupted,
// ErrPermission, ErrIO, ErrClosed, or ctx's. No finding of SeverityDamage means
// that all is well. The loop's body must not close the store.
func (f *FileStore) Verify(ctx context.Context, opts VerifyOptions) iter.Seq2[storage.Finding, error] {
	return func(yield func(storage.Finding, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(storage.Finding{}, err)
			return
		}
		defer leave()
		if err := s.verify(ctx, opts, func(f storage.Finding) bool { return yield(f, nil) }); err != nil {
			yield(storage.Finding{}, fmt.Errorf("verify %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
	}
}

// verify is Verify. It ends without an error when tell wants no more.
func (s *store) verify(ctx context.Context, opts VerifyOptions, tell func(storage.Finding) bool) error {
	v := &verification{ctx: ctx, s: s, opts: opts, tell: tell}
	err := v.begin()
	if err == nil {
		err = v.run()
		v.progress()
	}
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// errStopped ends a verification whose caller wants no more.
var errStopped = errors.New("stopped")

type verification struct {
	ctx  context.Context
	s    *store
	opts VerifyOptions // with defaults
	tell func(storage.Finding) bool
	pace pace

	step       VerifyStep
	seen       int64 // files of the tree
	ours       int64 // of blobs or sidecars among them
	nobodys    int64 // orphans among these
	blobs      int64 // looked at
	read       atomic.Int64
	counters   storage.Counters
	place      place // all before it is told of
	toldOfStep time.Time
}

// begin checks the options.
func (v *verification) begin() error {
	o := &v.opts
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{storage.ErrInvalidQuery}, args...)...)
	}
	switch {
	case o.Depth != "" && depthBytes[o.Depth] == 0:
		return invalid("Depth %q: want %q, %q or %q", o.Depth, DepthQuick, DepthChecksum, DepthDeep)
	case !(o.Sample >= 0 && o.Sample <= 100):
		return invalid("Sample %v: want a percentage, from 0 to 100", o.Sample)
	case o.Rate < 0:
		return invalid("Rate %d is negative", o.Rate)
	case o.Workers < 0:
		return invalid("Workers %d is negative", o.Workers)
	}
	if o.Resume != "" {
		p, err := o.Resume.place()
		if err != nil {
			return err
		}
		if o.Depth != "" && o.Depth != p.depth || o.Sample != 0 && o.Sample != p.sample || o.Seed != 0 && o.Seed != p.seed {
			return invalid("the position is of a verification of depth %s, sample %v %% and seed %d: leave these out, or say the same", p.depth, p.sample, p.seed)
		}
		o.Depth, o.Sample, o.Seed = p.depth, p.sample, p.seed
		v.place, v.blobs = p, p.blobs
		v.read.Store(p.bytes)
	}
	if o.Depth == "" {
		o.Depth = DepthChecksum
	}
	if o.Sample == 0 {
		o.Sample = 100
	}
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), maxVerifyWorkers)
	}
	v.place.depth, v.place.sample, v.place.seed = o.Depth, o.Sample, o.Seed
	v.pace.rate = o.Rate
	return nil
}

func (v *verification) run() error {
	// What is paid leaves staging and the debt.
	if err := v.s.checkpoint(v.ctx, true); err != nil {
		return err
	}
	if err := errors.Join(v.holds(), v.erasures()); err != nil {
		return err
	}
	if err := v.index(); err != nil {
		return err
	}
	steps := []func() error{v.tree, v.staging, v.rows, v.unlinks}
	if v.opts.Resume != "" {
		steps = steps[2:]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// index checks the index against itself. It ends the verification where that is
// damaged: rows of a damaged tree say nothing about files.
func (v *verification) index() error {
	v.step = VerifyIndex
	var err error
	if v.counters, err = v.s.index.Counters(v.ctx); err != nil {
		return err
	}
	v.progress()
	findings, err := v.s.index.Verify(v.ctx)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if err := v.report(f); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(findings, func(f storage.Finding) bool { return f.Kind == storage.FindingIndex }) {
		return errStopped
	}
	return nil
}

func (v *verification) report(f storage.Finding) error {
	if f.Severity == "" {
		f.Severity = storage.SeverityDamage
	}
	v.s.watch.found(&f)
	if !v.tell(f) {
		return errStopped
	}
	return nil
}

// progressPause is between two times that a long step tells how far it is.
const progressPause = 100 * time.Millisecond

func (v *verification) progress() {
	if v.opts.Progress == nil {
		return
	}
	v.toldOfStep = time.Now()
	p := VerifyProgress{
		Step: v.step, Files: v.seen, Position: v.place.position(),
		Blobs: v.blobs, TotalBlobs: max(v.blobs, v.counters.Blobs),
		Bytes: v.read.Load(), Depth: v.opts.Depth, Sample: v.opts.Sample, Seed: v.opts.Seed,
	}
	if v.opts.Depth != DepthQuick {
		p.TotalBytes = max(p.Bytes, int64(v.opts.Sample/100*float64(v.counters.PhysicalBytes)))
	}
	v.opts.Progress(p)
}
