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
	"time"

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
	// Limit is how long it may take. The cuts then come in passes over the
	// recording, each of which has some of them, from all of it. Zero: no limit.
	Limit time.Duration
}

// Outcome is what came of a plan.
type Outcome struct {
	Cuts     int // cuts tried: pairs of an event and a choice
	Events   int // after which these were, of one more than there are: the beginning is one
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
	c := rec.cutting(plan)
	err := c.run(ctx, trials)
	close(trials)
	group.Wait()
	out.Events = c.made
	if len(out.Failures) == 0 {
		err = errors.Join(first, err)
	} else {
		err = first
	}
	return &out, err
}

// passes is over how many passes the cuts of a plan with a limit are spread.
const passes = 16

// cutting goes through a recording, and sends the surviving trees of the cuts of
// a plan.
type cutting struct {
	rec    *Recording
	plan   Plan
	end    time.Time // zero: none
	wanted []int     // after which events to cut, in their order
	ends   []int     // how many operations had ended at each cut
	r      *rand.Rand

	asked map[[2]int]bool // syncs and ends of operations of cuts that left nothing
	made  int             // events after which there was a cut
}

func (rec *Recording) cutting(plan Plan) *cutting {
	c := &cutting{rec: rec, plan: plan, ends: rec.ends(), asked: map[[2]int]bool{},
		r: rand.New(rand.NewPCG(plan.Seed, 0x706c616e))}
	for cut := range len(rec.events) + 1 {
		if c.r.IntN(max(1, plan.Every)) == 0 {
			c.wanted = append(c.wanted, cut)
		}
	}
	if plan.Limit > 0 {
		c.end = time.Now().Add(plan.Limit)
	}
	return c
}

// run makes the cuts: in one pass, or in those that the limit leaves time for.
func (c *cutting) run(ctx context.Context, trials chan<- trial) error {
	if c.end.IsZero() {
		return c.cuts(ctx, c.wanted, trials)
	}
	for _, part := range c.r.Perm(passes) {
		var some []int
		for i, cut := range c.wanted {
			if i%passes == part {
				some = append(some, cut)
			}
		}
		if err := c.cuts(ctx, some, trials); err != nil {
			return err
		}
	}
	return nil
}

// cuts goes through the events once and cuts after some of them.
func (c *cutting) cuts(ctx context.Context, some []int, trials chan<- trial) error {
	m, err := c.rec.start()
	if err != nil {
		return err
	}
	syncs, synced, next := 0, false, 0
	for _, cut := range some {
		if !c.end.IsZero() && time.Now().After(c.end) {
			return nil
		}
		for ; next < cut; next++ {
			e := &c.rec.events[next]
			m.Apply(e)
			if synced = e.Kind == Sync || e.Kind == SyncAll; synced {
				syncs++
			}
		}
		for _, choice := range c.choices([2]int{syncs, c.ends[cut]}, synced) {
			if err := c.rec.send(ctx, m, cut, choice, trials); err != nil {
				return err
			}
		}
		c.made++
	}
	return nil
}

// choices are those of a cut. Nothing but what is durable is left once for every
// number of syncs and of operations that have ended: it is the same until one of
// them changes.
func (c *cutting) choices(now [2]int, synced bool) (list []Choice) {
	if !c.asked[now] {
		c.asked[now] = true
		list = append(list, Choice{Keep: Nothing})
	}
	if !synced {
		list = append(list, Choice{Keep: Everything})
	}
	for range c.plan.Seeds {
		list = append(list, Choice{Some, c.r.Uint64()})
	}
	return list
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
