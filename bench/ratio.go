package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Ratio is a figure of mediabolt over the floor it is held to, both measured in
// the same run.
type Ratio struct {
	Target
	Rounds []Round
}

// Round is one measurement of both, back to back, in operations per second.
type Round struct{ Floor, Subject float64 }

// Ratio is subject over floor.
func (r Round) Ratio() float64 { return r.Subject / r.Floor }

// Median is the round with the middle ratio.
func (r *Ratio) Median() Round {
	sorted := slices.SortedFunc(slices.Values(r.Rounds), func(a, b Round) int { return cmp.Compare(a.Ratio(), b.Ratio()) })
	return sorted[len(sorted)/2]
}

// Best is the best of floor and of subject, each of its own round: what else the
// machine does can only slow both, and seldom every round of one of them. A
// regression slows every round.
func (r *Ratio) Best() Round {
	var best Round
	for _, round := range r.Rounds {
		best.Floor, best.Subject = max(best.Floor, round.Floor), max(best.Subject, round.Subject)
	}
	return best
}

// measure alternates floor and subject, so that what else the machine does
// meets both.
func (r *Ratio) measure(ctx context.Context, rounds int, d time.Duration, floor, subject func(writer int) func() error) error {
	for range rounds {
		f, err := Rate(ctx, r.Writers, d, floor)
		if err != nil {
			return fmt.Errorf("%s: floor: %w", r.Name, err)
		}
		s, err := Rate(ctx, r.Writers, d, subject)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		r.Rounds = append(r.Rounds, Round{f.PerSecond(), s.PerSecond()})
	}
	return nil
}
