package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

// Plan is which cuts a Series tries.
type Plan struct {
	// Kinds are the filesystems' names. Default: all of Filesystems.
	Kinds []string
	// Seeds are those of the workloads; each is recorded once per kind.
	Seeds []uint64
	// Limit is how long the cuts of one recording may take. They come in an
	// order that is spread over the recording. Default: 0, no limit: every cut.
	Limit time.Duration
	// Order is the seed of that order. Default: that of the workload.
	Order uint64
	// Recoveries is how many recoveries of each recording are cut as well, and
	// the recovery after that once more. Default: 0, none.
	Recoveries int
	// First ends the series with the first failure.
	First bool
	// LogDir is where recordings with a failure are saved. Default:
	// os.TempDir.
	LogDir string
	// Configure changes the configuration of the store that the workload uses,
	// Recover that of the store after a cut. Default: as it is.
	Configure, Recover func(engine.FileStoreConfig) engine.FileStoreConfig
	// Progress is told after every cut of a recording; calls do not overlap.
	Progress func(Progress)
}

// Progress is how far the cuts of one recording are.
type Progress struct {
	Kind        string
	Seed        uint64
	Done, Total int // events after which the power was cut, and all
}

// Result is what came of a series.
type Result struct {
	Recordings   int           `json:"recordings"`
	Events       int           `json:"events"`        // writes and flushes of all recordings
	CutEvents    int           `json:"cut_events"`    // after which the power was cut
	Cuts         int           `json:"cuts"`          // of a workload
	RecoveryCuts int           `json:"recovery_cuts"` // of a recovery, once or twice
	Elapsed      time.Duration `json:"elapsed_ns"`    // of the cuts, without the recordings
	Failures     []Failure     `json:"failures"`
}

// Failure is a cut after which a promise was broken.
type Failure struct {
	Case       string               `json:"case"`
	Log        string               `json:"log"` // the recording, saved
	Violations []workload.Violation `json:"violations"`
}

// Reproduce is the command that tries the cut again, in the project's directory.
func (f *Failure) Reproduce() string {
	return fmt.Sprintf("MEDIABOLT_CUT=%s MEDIABOLT_CUT_LOG=%s go test -run 'TestPowerCut$' ./engine", f.Case, f.Log)
}

func (f *Failure) String() string {
	s := f.Reproduce()
	for _, v := range f.Violations {
		s += "\n\t" + v.String()
	}
	return s
}

// series is a Series under way.
type series struct {
	plan  Plan
	disks *Disks

	mu     sync.Mutex // guards the rest
	result Result
	start  time.Time // of the cuts of this recording
	saved  map[*Recording]string
}

// Series records the workload on every kind of filesystem with every seed, and
// cuts it. An error is one of the machine, or ctx's; violations are in the
// result, which counts what was done in any case.
func Series(ctx context.Context, disks *Disks, plan Plan) (Result, error) {
	if len(plan.Kinds) == 0 {
		for _, f := range Filesystems() {
			plan.Kinds = append(plan.Kinds, f.Name)
		}
	}
	if plan.LogDir == "" {
		plan.LogDir = os.TempDir()
	}
	s := &series{plan: plan, disks: disks, saved: map[*Recording]string{}}
	for _, kind := range plan.Kinds {
		for _, seed := range plan.Seeds {
			if err := s.recording(ctx, kind, seed); err != nil {
				return s.result, fmt.Errorf("power cuts of %s, seed %d: %w", kind, seed, err)
			}
			if plan.First && len(s.result.Failures) > 0 {
				return s.result, nil
			}
		}
	}
	return s.result, nil
}

// recording records one workload and cuts it.
func (s *series) recording(ctx context.Context, kind string, seed uint64) (err error) {
	f, err := filesystem(kind)
	if err != nil {
		return err
	}
	r, err := Record(ctx, s.disks, kind, seed, s.plan.Configure)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Drop()) }()
	r.Recover = s.plan.Recover
	s.result.Recordings++
	s.result.Events += r.Events
	s.start = time.Now()
	defer func() { s.result.Elapsed += time.Since(s.start) }()
	workers := runtime.GOMAXPROCS(0)
	if f.alone {
		workers = 1
	}
	events := make(chan moment, r.Events)
	for i, k := range order(r.Events, cmp.Or(s.plan.Order, seed)) {
		events <- moment{k, s.plan.Recoveries > 0 && i%max(1, r.Events/s.plan.Recoveries) == 0}
	}
	close(events)
	done := 0 // guarded by s.mu
	errs := make([]error, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for m := range events {
				if s.enough(ctx) {
					return
				}
				if errs[w] = s.moment(ctx, r, m); errs[w] != nil {
					return
				}
				s.mu.Lock()
				done++
				s.result.CutEvents++
				if s.plan.Progress != nil {
					s.plan.Progress(Progress{kind, seed, done, r.Events})
				}
				s.mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// order is the numbers from 1 to n, shuffled.
func order(n int, seed uint64) []int {
	list := rand.New(rand.NewPCG(seed, uint64(n))).Perm(n)
	for i := range list {
		list[i]++
	}
	return list
}

// enough says whether no further cut of the recording is wanted.
func (s *series) enough(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ctx.Err() != nil || s.plan.Limit > 0 && time.Since(s.start) > s.plan.Limit || s.plan.First && len(s.result.Failures) > 0
}

// moment is an event after which the power is cut.
type moment struct {
	event   int
	recover bool // cut the recovery as well
}

// moment cuts the power after one event, with every choice that can differ.
func (s *series) moment(ctx context.Context, r *Recording, m moment) error {
	choices := []Choice{ChoiceNone}
	for i := 0; i < len(choices); i++ {
		judged, err := s.cut(ctx, r, m.event, choices[i])
		if err != nil {
			return err
		}
		if i == 0 && judged.Chance == 1 {
			choices = append(choices, ChoiceAll)
		} else if i == 0 && judged.Chance > 1 {
			choices = Choices()
		}
		if i == 0 && m.recover {
			err = s.recovery(ctx, judged, 2)
		}
		if err := errors.Join(err, judged.Recovery.Drop()); err != nil {
			return err
		}
	}
	return nil
}

// recoveryCuts is how often a recovery is cut: most of them before the opening
// was over.
const recoveryCuts = 4

// recovery cuts a recovery at a few of its events, and up to depth recoveries in
// a row.
func (s *series) recovery(ctx context.Context, judged *Judged, depth int) error {
	r := judged.Recovery
	chance := rand.New(rand.NewPCG(r.Seed, uint64(r.Origin)))
	opened := int(judged.Opened - r.Origin)
	if depth == 0 || opened <= 0 {
		return nil
	}
	for i := range recoveryCuts {
		if i > 0 && s.enough(ctx) {
			return nil
		}
		k := 1 + chance.IntN(opened)
		if i == recoveryCuts-1 {
			k = 1 + chance.IntN(r.Events)
		}
		next, err := s.cut(ctx, r, k, Choices()[chance.IntN(len(Choices()))])
		if err != nil {
			return err
		}
		if err := errors.Join(s.recovery(ctx, next, depth-1), next.Recovery.Drop()); err != nil {
			return err
		}
	}
	return nil
}

// cut makes one cut, and keeps what came of it.
func (s *series) cut(ctx context.Context, r *Recording, k int, choice Choice) (*Judged, error) {
	judged, err := r.Cut(ctx, k, choice)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Case(k, choice), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Origin == 0 {
		s.result.Cuts++
	} else {
		s.result.RecoveryCuts++
	}
	if len(judged.Violations) > 0 {
		log, err := s.save(r)
		if err != nil {
			return nil, errors.Join(err, judged.Recovery.Drop())
		}
		s.result.Failures = append(s.result.Failures, Failure{r.Case(k, choice).String(), log, judged.Violations})
	}
	return judged, nil
}

// save saves a recording unless it was saved before. The caller holds mu.
func (s *series) save(r *Recording) (name string, err error) {
	if name := s.saved[r]; name != "" {
		return name, nil
	}
	dir, err := os.MkdirTemp(s.plan.LogDir, "mediabolt-cut-")
	if err != nil {
		return "", err
	}
	name = filepath.Join(dir, r.Kind)
	s.saved[r] = name
	return name, r.Save(name)
}
