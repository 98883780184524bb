package certify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mediabolt/mediabolt/engine"
)

// Consistency lets a crew work on one store in this process, without a fault,
// and judges it before and after it is closed and opened again.
type Consistency struct {
	// Dir is the store's directory, which nobody else uses.
	Dir  string
	Seed uint64
	// Keep is as for Killer.
	Keep int
	// Slice is how long the crew works in one round.
	Slice time.Duration
	// Progress, if not nil, is told the counts after each round.
	Progress func(ConsistencyReport)
}

// ConsistencyReport is what a Consistency did.
type ConsistencyReport struct {
	Rounds   int `json:"rounds"`
	Verified int `json:"verified"` // verifications beside the work
	Count
	References int `json:"references"` // in the end
}

// Run is as for Killer.
func (c *Consistency) Run(ctx context.Context, rounds int, until time.Time) (ConsistencyReport, []Violation, error) {
	var report ConsistencyReport
	m := newModel()
	r := rand.New(rand.NewPCG(c.Seed, 1))
	for round := range rounds {
		o, err := newOrders(r, c.Dir, c.Seed, round, c.Keep)
		if err != nil {
			return report, nil, err
		}
		m.begin(o)
		verified, broken, err := c.round(ctx, o, m)
		report.Rounds++
		report.Verified += verified
		report.Count, report.References = m.count, len(m.live)
		if c.Progress != nil {
			c.Progress(report)
		}
		for i := range broken {
			broken[i].Part, broken[i].Round = "consistency", round
		}
		if err != nil || len(broken) > 0 || !until.IsZero() && !time.Now().Before(until) {
			return report, broken, err
		}
	}
	return report, nil, nil
}

func (c *Consistency) round(ctx context.Context, o *orders, m *model) (verified int, broken []Violation, err error) {
	store, _, broken, err := open(ctx, o.config())
	if store == nil {
		return 0, broken, err
	}
	verified, broken, err = c.work(ctx, store, o, m)
	if err == nil && len(broken) == 0 {
		j := &judge{store: store, dir: o.Dir, model: m, full: true}
		broken, err = j.run(ctx)
	}
	if failed := store.Close(); failed != nil && !hindered(failed) {
		broken = append(broken, Violation{Kind: ViolationCall, Detail: failed.Error()})
	} else {
		err = errors.Join(err, failed)
	}
	left, failed := leftInStaging(o.Dir, "Close")
	broken, err = append(broken, left...), errors.Join(err, failed)
	if err != nil || len(broken) > 0 {
		return verified, broken, err
	}
	_, broken, err = inspect(ctx, o.config(), m, true)
	return verified, broken, err
}

// work lets a crew work for a slice, and verifies the store meanwhile, again
// and again.
func (c *Consistency) work(ctx context.Context, store *engine.FileStore, o *orders, m *model) (verified int, broken []Violation, err error) {
	slice, stop := context.WithTimeout(ctx, c.Slice)
	defer stop()
	watch := &judge{store: store, dir: o.Dir, model: m}
	watched := make(chan error, 1)
	go func() {
		var err error
		for ; slice.Err() == nil && err == nil; verified++ {
			err = watch.verify(ctx)
		}
		watched <- err
	}()
	crew := &crew{store: store, say: m.hear, seed: o.Seed, round: o.Round, keep: o.Keep}
	err = crew.work(slice)
	stop()
	failed := <-watched
	broken = append(m.broken, watch.found...)
	if err != nil && ctx.Err() == nil && !hindered(err) {
		return verified, append(broken, Violation{Kind: ViolationCall, Detail: err.Error()}), nil
	}
	if n := m.inFlight(); err == nil && n > 0 {
		broken = append(broken, Violation{Kind: ViolationCall, Detail: fmt.Sprintf("%d calls neither returned nor were refused", n)})
	}
	return verified, broken, errors.Join(err, failed, ctx.Err())
}
