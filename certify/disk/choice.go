package disk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Choice is which of the writes that no flush covers a power cut leaves.
type Choice string

// The choices. Those that leave something to chance take it from a seed.
const (
	ChoiceNone   Choice = "none"   // nothing but what is durable
	ChoiceAll    Choice = "all"    // everything
	ChoicePrefix Choice = "prefix" // the first of the writes
	ChoiceTorn   Choice = "torn"   // the first of them, and of the next its first blocks
	ChoiceSubset Choice = "subset" // any blocks of any of them
)

// Choices lists every choice.
func Choices() []Choice {
	return []Choice{ChoiceNone, ChoiceAll, ChoicePrefix, ChoiceTorn, ChoiceSubset}
}

// ParseChoice reads a choice's name.
func ParseChoice(s string) (Choice, error) {
	if c := Choice(s); slices.Contains(Choices(), c) {
		return c, nil
	}
	return "", fmt.Errorf("choice %q: want one of %v", s, Choices())
}

// cut is what a power cut after event k leaves, and how many blocks were left
// to chance.
func (d *device) cut(k int, choice Choice, seed uint64) (left image, chance int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log[:min(k, len(d.log))]
	durable := func(e *event) bool { return e.Durable != 0 && e.Durable <= len(log) }
	volatile := 0
	for i := range log {
		if len(log[i].Pieces) > 0 && !durable(&log[i]) {
			volatile++
			chance += len(log[i].Pieces)
		}
	}
	keep := choice.keep(volatile, rand.New(rand.NewPCG(seed, uint64(k))))
	left = maps.Clone(d.base)
	nth := 0
	for i := range log {
		e := &log[i]
		if durable(e) {
			for _, p := range e.Pieces {
				left.apply(p)
			}
		} else if len(e.Pieces) > 0 {
			for j, p := range e.Pieces {
				if keep(nth, j, len(e.Pieces)) {
					left.apply(p)
				}
			}
			nth++
		}
	}
	return left, chance
}

// keep returns the function that says whether a piece is kept: that of index
// piece, of as many, of the write of index write among the volatile ones. It is
// to be called once for every piece, in order.
func (c Choice) keep(volatile int, r *rand.Rand) func(write, piece, pieces int) bool {
	switch c {
	case ChoiceAll:
		return func(int, int, int) bool { return true }
	case ChoicePrefix:
		n := r.IntN(volatile + 1)
		return func(write, _, _ int) bool { return write < n }
	case ChoiceTorn:
		if volatile == 0 {
			break
		}
		n, part := r.IntN(volatile), r.Float64()
		return func(write, piece, pieces int) bool {
			return write < n || write == n && float64(piece) < part*float64(pieces)
		}
	case ChoiceSubset:
		share := r.Float64()
		return func(int, int, int) bool { return r.Float64() < share }
	}
	return func(int, int, int) bool { return false }
}
