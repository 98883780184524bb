package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Gate is what mediabolt must reach for a change to land.
type Gate struct {
	// Fraction of Target.Want that is enough.
	Fraction float64
	// Tries is how often a ratio that falls short is measured again, the first
	// time included: noise passes, a regression stays.
	Tries int
	// Measure measures the targets that only says yes to, and calls done with
	// each.
	Measure func(ctx context.Context, only func(Target) bool, done func(*Ratio)) error
	// Settle is called before each try, to wait until the machine has nothing else
	// to do. Nil: there is no waiting.
	Settle func(ctx context.Context) error
	// Done is told of every measurement, and whether it was enough.
	Done func(try int, r *Ratio, least float64, enough bool)
}

// Run measures until every target that the gate holds has been reached once, by
// the best rounds of floor and store, and is an error that names the others after
// the last try.
func (g *Gate) Run(ctx context.Context) error {
	var short []string
	for try := 1; try <= g.Tries; try++ {
		last := short
		short = nil
		measured := 0
		if g.Settle != nil {
			if err := g.Settle(ctx); err != nil {
				return err
			}
		}
		err := g.Measure(ctx,
			func(t Target) bool { return try == 1 || slices.Contains(last, t.Name) },
			func(r *Ratio) {
				measured++
				least := r.Want * g.Fraction
				enough := r.Best().Ratio() >= least
				if !enough {
					short = append(short, r.Name)
				}
				g.Done(try, r, least, enough)
			})
		switch {
		case err != nil:
			return err
		case measured == 0 || try > 1 && measured != len(last):
			return fmt.Errorf("%d ratios were measured, not those that the gate holds", measured)
		case len(short) == 0:
			return nil
		}
	}
	return fmt.Errorf("below the gate in each of %d tries: %s", g.Tries, strings.Join(short, "; "))
}
