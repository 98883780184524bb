// Package certify proves on a given disk that a store keeps its promises when
// processes are killed, and tells what the disk's syncs are worth.
//
// # Who knows what
//
// A crew (crew.go) of 64 goroutines stores, deletes, holds, erases (dossier.go) and
// reads on one store, with quotas and in a scope that changes from round to round, and
// tells every step before and after it (note.go). A model (model.go), outside
// of the process that works, hears that and knows what must be there, what must
// not, and what was in flight. A judge (judge.go) compares the store with the
// model: every acknowledged reference with its metadata, bytes and refcount;
// no deleted one; what was in flight wholly there or not at all, an erasure with all
// its references; holds (lifecycle.go); bytes shared within a scope and nowhere else,
// usage and quotas (limits.go); totals; nothing in staging, no file in the tree that no reference has; and now and then all
// bytes, and Verify.
//
// Content is made from seeds (piece.go), so that a model of thousands of blobs
// is small. Unlike the journal of package workload, which keeps every operation
// for judgements at any moment in the past, a model keeps only the present:
// that is what lets one store live through hundreds of thousands of operations.
//
// # Parts
//
// Consistency: crews in this process, no faults. Killer: processes that are
// killed, paused and closed. MeasureDisk: latencies, and whether a sync reaches
// the disk. Power cuts: those of package disk. Run does them all below one
// directory and sums up in a Report.
package certify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Options of a certification. Dir and Victim are required.
type Options struct {
	// Dir is an existing directory; everything happens in a new one below it.
	Dir string
	// Victim makes a command that runs Victim on its standard streams.
	Victim func() *exec.Cmd
	// Duration is about how long it takes. Default: DefaultDuration. Every
	// part does one round at least.
	Duration time.Duration
	// Seed makes all random choices but the moments. Default: a fresh one.
	Seed uint64
	// Keep leaves the new directory there. What is in it when a promise was
	// broken is kept in any case.
	Keep bool
	// PowerCut also cuts the power of a disk of our own with an ext4 on it,
	// which needs Linux, root, FUSE and loop devices.
	PowerCut bool
	// Progress, if not nil, is told what is being done and what part of the
	// duration is over.
	Progress func(doing string, done float64)
}

// DefaultDuration is enough for about a hundred rounds.
const DefaultDuration = time.Minute

// maxSeed bounds fresh seeds to what every reader of JSON keeps exactly.
const maxSeed = 1 << 53

// Parts of the duration.
const (
	shareDisk        = 0.15
	shareConsistency = 0.25             // of what the disk has left
	sharePowerCut    = 0.5              // of what consistency has left
	maxDisk          = 15 * time.Second // more samples tell no more
)

// Size of the stores: each of the 64 goroutines keeps up to keepRefs
// references, of 48 KiB on average, and a round or two of garbage comes on top.
const (
	keepRefs    = 32
	neededSpace = 1 << 30
)

// Report is what a certification found.
type Report struct {
	OK          bool              `json:"ok"` // no promise was broken
	Dir         string            `json:"dir"`
	Kept        string            `json:"kept,omitempty"` // the directory with the evidence
	Seed        uint64            `json:"seed"`
	Seconds     float64           `json:"seconds"`
	Disk        Disk              `json:"disk"`
	Consistency ConsistencyReport `json:"consistency"`
	PowerCut    *PowerCutReport   `json:"power_cut"` // null: not asked for
	Kills       KillReport        `json:"kills"`
	Violations  []Violation       `json:"violations"`
}

// Run certifies a disk. A broken promise is in the report; an error says why
// there is none: fs.ErrNotExist or storage.ErrInvalidConfig for Dir,
// ErrNoPowerCut, storage.ErrPermission, storage.ErrDiskSpace, storage.ErrIO, or
// ctx's. What it made is removed also then.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Duration <= 0 {
		o.Duration = DefaultDuration
	}
	if o.Seed == 0 {
		o.Seed = 1 + rand.Uint64N(maxSeed)
	}
	if o.Progress == nil {
		o.Progress = func(string, float64) {}
	}
	if o.PowerCut {
		if err := missingForPowerCuts(); err != nil {
			return nil, err
		}
	}
	scratch, err := makeScratch(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &certification{Options: o, scratch: scratch, begun: time.Now()}
	c.report = Report{Dir: filepath.Dir(scratch), Seed: o.Seed, Violations: []Violation{}}
	defer func() {
		if err == nil && (o.Keep || !c.report.OK) {
			return
		}
		err = errors.Join(err, os.RemoveAll(scratch))
	}()
	if err := c.run(ctx); err != nil {
		return nil, storage.Classify(err)
	}
	c.report.OK = len(c.report.Violations) == 0
	if o.Keep || !c.report.OK {
		c.report.Kept = scratch
	}
	c.report.Seconds = math.Round(time.Since(c.begun).Seconds()*1000) / 1000
	return &c.report, nil
}

// makeScratch makes a directory of our own below dir, once there is room.
func makeScratch(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("directory to certify: %w", err)
	case err != nil:
		return "", fmt.Errorf("directory to certify: %w", storage.Classify(err))
	case !info.IsDir():
		return "", fmt.Errorf("%w: %s is not a directory", storage.ErrInvalidConfig, dir)
	}
	free, err := freeSpace(dir)
	if err != nil {
		return "", fmt.Errorf("free space of %s: %w", dir, storage.Classify(err))
	}
	if free < neededSpace {
		return "", fmt.Errorf("%w: %s has %d MiB free, a certification needs %d MiB for a while",
			storage.ErrDiskSpace, dir, free>>20, int64(neededSpace)>>20)
	}
	scratch, err := os.MkdirTemp(dir, "mediabolt-certify-")
	if err != nil {
		return "", fmt.Errorf("make a scratch folder in %s: %w", dir, storage.Classify(err))
	}
	return scratch, nil
}

// certification is one Run.
type certification struct {
	Options
	scratch string
	begun   time.Time
	report  Report
}

// tell tells how far the work has come.
func (c *certification) tell(format string, args ...any) {
	done := float64(time.Since(c.begun)) / float64(c.Duration)
	c.Progress(fmt.Sprintf(format, args...), min(done, 1))
}

func (c *certification) run(ctx context.Context) (err error) {
	end := c.begun.Add(c.Duration)
	c.tell("measuring the disk")
	slice := min(time.Duration(float64(c.Duration)*shareDisk), maxDisk)
	if c.report.Disk, err = MeasureDisk(ctx, c.path("disk"), slice); err != nil {
		return err
	}
	for _, part := range []func(context.Context, time.Time) ([]Violation, error){c.consistency, c.powerCut, c.kills} {
		broken, err := part(ctx, end)
		c.report.Violations = append(c.report.Violations, broken...)
		if err != nil || len(broken) > 0 {
			return besides(err, broken)
		}
	}
	return nil
}

// besides is an error that also tells what else was seen: a disk that fails can
// make a store look broken, and the other way round.
func besides(err error, broken []Violation) error {
	if err == nil || len(broken) == 0 {
		return err
	}
	return fmt.Errorf("%w; seen besides, perhaps for the same reason: %s in %s: %s", err, broken[0].Kind, broken[0].Part, broken[0].Detail)
}

func (c *certification) path(name string) string { return filepath.Join(c.scratch, name) }

func (c *certification) consistency(ctx context.Context, end time.Time) (broken []Violation, err error) {
	c.tell("consistency")
	left := time.Until(end)
	calm := &Consistency{
		Dir: c.path("consistency"), Seed: c.Seed, Keep: keepRefs,
		Slice:    min(left/16, time.Second), // a round is a slice of work, and about as much of judging, twice
		Progress: func(r ConsistencyReport) { c.tell("consistency: %d rounds", r.Rounds) },
	}
	c.report.Consistency, broken, err = calm.Run(ctx, math.MaxInt, time.Now().Add(time.Duration(float64(left)*shareConsistency)))
	return broken, err
}

func (c *certification) powerCut(ctx context.Context, end time.Time) ([]Violation, error) {
	if !c.PowerCut {
		return nil, nil
	}
	c.tell("power cuts")
	limit := time.Duration(float64(time.Until(end)) * sharePowerCut)
	report, broken, err := powerCuts(ctx, c.path("power-cut"), c.Seed, max(limit, 1), func(cut, of int) {
		c.tell("power cuts: after %d of %d writes", cut, of)
	})
	c.report.PowerCut = &report
	return broken, err
}

func (c *certification) kills(ctx context.Context, end time.Time) (broken []Violation, err error) {
	killer := &Killer{
		Dir: c.path("kills"), Victim: c.Victim, Seed: c.Seed, Keep: keepRefs,
		Progress: func(r KillReport) { c.tell("%d kills, %d pauses, %d closes", r.Kills, r.Pauses, r.Closes) },
	}
	c.report.Kills, broken, err = killer.Run(ctx, math.MaxInt, end)
	return broken, err
}
