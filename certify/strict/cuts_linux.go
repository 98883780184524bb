package strict

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/mediabolt/mediabolt/certify/workload"
)

// Plan is which cuts of a recording are tried.
type Plan struct {
	// Every is the mean distance of one cut from the next. 1: all.
	Every int
	// Seeds is how many seeds are tried for what a cut leaves by chance.
	Seeds int
	// Seed decides which cuts and which seeds.
	Seed uint64
	// Max ends the plan after so many violations. Zero: 1.
	Max int
}

// Outcome is what came of a plan.
type Outcome struct {
	Cuts     int // cuts tried: pairs of an event and a choice
	Failures []Failure
}

// Failure is a cut after which the store had broken a promise.
type Failure struct {
	Cut        int
	Choice     Choice
	Violations []workload.Violation
	Case       string // directory from which Replay makes it happen again
}

func (f *Failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cut after event %d, %s survives:", f.Cut, f.Choice)
	for _, v := range f.Violations {
		fmt.Fprintf(&b, "\n\t%s", v)
	}
	return b.String()
}

// trial is a cut whose surviving tree stands in dir.
type trial struct {
	cut    int
	choice Choice
	dir    string
}

// Try makes the cuts of a plan, as many at a time as there are processors, and
// judges the store after each.
func (rec *Recording) Try(ctx context.Context, plan Plan) (*Outcome, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	trials := make(chan trial)
	var (
		out   Outcome
		mu    sync.Mutex // guards out and first
		first error
		group sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for t := range trials {
				failure, err := rec.judge(ctx, &t)
				mu.Lock()
				switch {
				case ctx.Err() != nil: // out has enough, or the caller has
				case err != nil:
					first = errors.Join(first, err)
					stop()
				default:
					out.Cuts++
					if failure != nil {
						out.Failures = append(out.Failures, *failure)
					}
					if len(out.Failures) >= max(1, plan.Max) {
						stop()
					}
				}
				mu.Unlock()
			}
		})
	}
	err := rec.cuts(ctx, plan, trials)
	close(trials)
	group.Wait()
	if len(out.Failures) == 0 {
		err = errors.Join(first, err)
	} else {
		err = first
	}
	return &out, err
}

// cuts goes through the events once and sends the surviving trees of the plan's
// cuts.
func (rec *Recording) cuts(ctx context.Context, plan Plan, trials chan<- trial) error {
	m, err := rec.start()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(plan.Seed, 0x706c616e))
	ends := rec.ends()
	var asked [2]int // syncs and ends of operations at the last cut that left nothing
	syncs := 0
	for cut := 0; cut <= len(rec.events); cut++ {
		synced := false
		if cut > 0 {
			e := &rec.events[cut-1]
			m.Apply(e)
			if synced = e.Kind == Sync || e.Kind == SyncAll; synced {
				syncs++
			}
		}
		if r.IntN(max(1, plan.Every)) != 0 {
			continue
		}
		var choices []Choice
		if now := [2]int{syncs, ends[cut]}; now != asked || cut == 0 {
			asked = now
			choices = append(choices, Choice{Keep: Nothing})
		}
		if !synced {
			choices = append(choices, Choice{Keep: Everything})
		}
		for range plan.Seeds {
			choices = append(choices, Choice{Some, r.Uint64()})
		}
		for _, c := range choices {
			if err := rec.send(ctx, m, cut, c, trials); err != nil {
				return err
			}
		}
	}
	return nil
}

// ends is how many operations had ended at each cut.
func (rec *Recording) ends() []int {
	ends := make([]int, len(rec.events)+1)
	for _, op := range rec.journal.Ops() {
		if op.Ended != 0 {
			for cut := max(0, int(op.Ended)-rec.begun); cut < len(ends); cut++ {
				ends[cut]++
			}
		}
	}
	return ends
}

func (rec *Recording) send(ctx context.Context, m *Model, cut int, c Choice, trials chan<- trial) error {
	dir, err := os.MkdirTemp(rec.run.Scratch, "cut-")
	if err != nil {
		return err
	}
	if err := m.Survive(c).Write(dir); err != nil {
		return errors.Join(fmt.Errorf("write what survives: %w", err), os.RemoveAll(dir))
	}
	select {
	case trials <- trial{cut, c, dir}:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), os.RemoveAll(dir))
	}
}

// judge judges the store of a trial and removes it.
func (rec *Recording) judge(ctx context.Context, t *trial) (_ *Failure, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
	j := rec.journal.Cut(int64(rec.begun+t.cut), nil)
	verdict, err := workload.Judge(ctx, rec.run.target(t.dir, nil), j)
	if err != nil || len(verdict.Violations) == 0 {
		return nil, err
	}
	f := &Failure{Cut: t.cut, Choice: t.choice, Violations: verdict.Violations}
	f.Case, err = rec.save(t)
	return f, err
}

// A case is a directory with these: the tree that survived, the journal at the
// cut, and what came before and at the cut, to be read by people.
const (
	caseTree    = "tree"
	caseJournal = "journal"
	caseEvents  = "events.txt"
)

// save makes a case of a trial, outside of the run's scratch directory.
func (rec *Recording) save(t *trial) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "mediabolt-strict-"); err != nil {
		return "", err
	}
	m, err := rec.at(t.cut)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, caseTree)
	if err := errors.Join(os.Mkdir(tree, 0o700), m.Survive(t.choice).Write(tree)); err != nil {
		return "", err
	}
	var journal, events strings.Builder
	for _, op := range rec.journal.Cut(int64(rec.begun+t.cut), nil).Ops() {
		line, err := json.Marshal(op)
		if err != nil {
			return "", err
		}
		journal.Write(append(line, '\n'))
	}
	for i := range rec.events {
		fmt.Fprintf(&events, "%d\t%s\n", i+1, &rec.events[i])
		if i+1 == t.cut {
			fmt.Fprintf(&events, "---- cut, %s survives\n", t.choice)
		}
	}
	return dir, errors.Join(os.WriteFile(filepath.Join(dir, caseJournal), []byte(journal.String()), 0o600),
		os.WriteFile(filepath.Join(dir, caseEvents), []byte(events.String()), 0o600))
}

// Replay judges a copy of a saved case once more.
func (r *Run) Replay(ctx context.Context, dir string) (_ *workload.Verdict, err error) {
	j := workload.NewJournal(nil, nil)
	lines, err := os.Open(filepath.Join(dir, caseJournal))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lines.Close()) }()
	if err := j.Read(lines); err != nil {
		return nil, err
	}
	m, err := Read(filepath.Join(dir, caseTree))
	if err != nil {
		return nil, err
	}
	copied, err := os.MkdirTemp(r.Scratch, "case-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if err := m.Survive(Choice{Keep: Everything}).Write(copied); err != nil {
		return nil, err
	}
	return workload.Judge(ctx, r.target(copied, nil), j)
}
