package certify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"time"
)

// Killer runs processes on one store that grows, ends them at random moments,
// and judges what they leave.
type Killer struct {
	// Dir is the store's directory, which nobody else uses.
	Dir string
	// Victim makes a command that runs Victim on its standard streams.
	Victim func() *exec.Cmd
	Seed   uint64
	// Keep is how many references each of the 64 goroutines of a victim has at
	// most, which bounds the store.
	Keep int
	// Work is how long a victim works at most. Default: DefaultWork.
	Work time.Duration
	// Progress, if not nil, is told the counts after each round.
	Progress func(KillReport)

	r         *rand.Rand
	model     *model
	report    KillReport
	unsettled int // what was in flight before this round
}

// KillReport is what a Killer did.
type KillReport struct {
	Rounds int `json:"rounds"`
	Kills  int `json:"kills"`  // by SIGKILL
	Pauses int `json:"pauses"` // by SIGSTOP, with a second opener meanwhile
	Closes int `json:"closes"` // by SIGTERM, in the middle of the work
	Judged int `json:"judged"` // rounds after which the store was judged
	Full   int `json:"full"`   // of these, with everything read and verified
	Count
	References int     `json:"references"`      // in the end
	SlowOpen   float64 `json:"slowest_open_ms"` // of the openings that were judged
}

// ending is how a round ends.
type ending int

const (
	endKill  ending = iota // some time after the store was opened
	endEarly               // perhaps while it is being opened
	endPause               // paused, resumed, then killed
	endClose               // asked to close the store
)

// plan is a round of the eight that repeat. What is not judged leaves what is
// in flight, and the recovery from it, to the next victim.
var plan = [8]struct {
	ending ending
	judged bool
}{
	{endKill, true}, {endKill, false}, {endEarly, true}, {endPause, true},
	{endKill, false}, {endEarly, false}, {endKill, true}, {endClose, true},
}

// DefaultWork lets a victim make some thousand calls at most.
const DefaultWork = 400 * time.Millisecond

// Rounds between two judgements of everything, the longest wait for a victim
// that is to be killed early, and how long one may take, on a busy machine, for
// what usually takes well below a second.
const (
	fullEvery  = 16
	maxOpening = 100 * time.Millisecond
	patience   = time.Minute
)

// Run does a number of rounds, or fewer where until, unless zero, comes first.
// It ends after the first round with a violation. An error says that the
// machine does not let it go on.
func (k *Killer) Run(ctx context.Context, rounds int, until time.Time) (KillReport, []Violation, error) {
	k.r = rand.New(rand.NewPCG(k.Seed, 0))
	k.model = newModel()
	if k.Work == 0 {
		k.Work = DefaultWork
	}
	for round := range rounds {
		last := round == rounds-1 || !until.IsZero() && !time.Now().Before(until)
		broken, err := k.round(ctx, round, last)
		k.report.Rounds++
		k.report.Count, k.report.References = k.model.count, len(k.model.live)
		if k.Progress != nil {
			k.Progress(k.report)
		}
		for i := range broken {
			broken[i].Part, broken[i].Round = "kills", round
		}
		if last || err != nil || len(broken) > 0 {
			return k.report, broken, err
		}
	}
	return k.report, nil, nil
}

func (k *Killer) round(ctx context.Context, round int, last bool) ([]Violation, error) {
	o, err := newOrders(k.r, k.Dir, k.Seed, round, k.Keep)
	if err != nil {
		return nil, err
	}
	k.model.begin(o)
	step := plan[round%len(plan)]
	if !canPause && step.ending != endEarly {
		step.ending = endKill
	}
	broken, err := k.victim(ctx, o, step.ending)
	if err != nil || len(broken) > 0 {
		return broken, err
	}
	if !step.judged && !last {
		return nil, nil
	}
	full := last || round%fullEvery == fullEvery-1
	took, broken, err := inspect(ctx, o.config(), k.model, full)
	if err != nil {
		return broken, fmt.Errorf("judge round %d: %w", round, err)
	}
	k.unsettled = 0
	k.report.Judged++
	if full {
		k.report.Full++
	}
	k.report.SlowOpen = max(k.report.SlowOpen, float64(took.Microseconds())/1000)
	return broken, nil
}

// victim runs one victim to its end.
func (k *Killer) victim(ctx context.Context, o *orders, how ending) (broken []Violation, err error) {
	p, err := start(k.Victim(), o, k.model)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() }) // ctx's error is what counts
	defer stop()
	switch how {
	case endEarly:
		k.idle(p, maxOpening)
	default:
		if !p.waitReady(ctx) {
			broken = append(broken, Violation{Kind: ViolationStall, Detail: "a process does not open the store within " + patience.String()})
		}
		k.idle(p, k.Work)
	}
	if how == endPause {
		more, failed := k.pauses(ctx, o, p)
		broken, err = append(broken, more...), errors.Join(err, failed)
	}
	if how == endClose {
		k.report.Closes++
		err = errors.Join(err, p.signal(terminate))
	} else {
		k.report.Kills++
		err = errors.Join(err, p.signal((*os.Process).Kill))
	}
	late, failed := p.wait(patience)
	if err := errors.Join(err, failed, ctx.Err()); err != nil {
		return nil, err
	}
	return k.hearOut(o, p, how, late, broken)
}

// hearOut is what the last words of a victim mean.
func (k *Killer) hearOut(o *orders, p *process, how ending, late bool, broken []Violation) ([]Violation, error) {
	m := k.model
	k.unsettled = m.killed(k.unsettled)
	broken = append(broken, m.broken...)
	// A stall may have the same cause; any other promise was broken by the store.
	proof := slices.ContainsFunc(broken, func(v Violation) bool { return v.Kind != ViolationStall })
	if m.hindrance != "" && !proof {
		return broken, fmt.Errorf("a process cannot go on in %s: %s", o.Dir, m.hindrance)
	}
	if p.complaints.Len() > 0 {
		broken = append(broken, Violation{Kind: ViolationCall, Detail: "a process complains: " + clip(p.complaints.String())})
	}
	if how != endClose {
		return broken, nil
	}
	switch {
	case late:
		broken = append(broken, Violation{Kind: ViolationStall, Detail: "a process does not close the store within " + patience.String()})
	case !m.closed:
		broken = append(broken, Violation{Kind: ViolationStall, Detail: "a process that was to close the store ended without"})
	case m.inFlight() > 0:
		broken = append(broken, Violation{Kind: ViolationCall, Detail: fmt.Sprintf(
			"%d calls neither returned nor were refused when the store was closed", m.inFlight())})
	}
	left, err := leftInStaging(o.Dir, "Close")
	return append(broken, left...), err
}

// idle lets a victim work for a random time.
func (k *Killer) idle(p *process, most time.Duration) {
	select {
	case <-time.After(time.Duration(k.r.Int64N(int64(most)))):
	case <-p.gone:
	}
}

// maxComplaint is how much of what a victim prints is shown, in bytes.
const maxComplaint = 4000

func clip(s string) string {
	if len(s) > maxComplaint {
		return s[:maxComplaint] + "…"
	}
	return s
}
