package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a measurement whose ratios are those of a script, a row per try.
func scripted(script map[string][]float64, measured map[string]int) func(context.Context, func(Target) bool, func(*Ratio)) error {
	return func(_ context.Context, only func(Target) bool, done func(*Ratio)) error {
		for _, t := range []Target{storeMany, storeOne, retrieveOne} {
			if !only(t) {
				continue
			}
			ratio := script[t.Name][measured[t.Name]]
			measured[t.Name]++
			done(&Ratio{Target: t, Rounds: []Round{{Floor: 1000, Subject: 1000 * ratio}}})
		}
		return nil
	}
}

func TestGate(t *testing.T) {
	for _, c := range []struct {
		name                 string
		fraction             float64
		many, one, retrieved []float64
		short                []string
	}{
		{"all enough", 1, []float64{1}, []float64{0.45}, []float64{2.5}, nil},
		{"at a fraction", 0.7, []float64{0.71}, []float64{0.32}, []float64{1.76}, nil},
		{"noise in one try", 1, []float64{0.5, 0.5, 1.1}, []float64{0.45}, []float64{1, 3}, nil},
		{"one regression", 0.7, []float64{0.69, 0.68, 0.69}, []float64{0.45}, []float64{3}, []string{storeMany.Name}},
		{"two regressions", 1, []float64{0.1, 0.1, 0.1}, []float64{0.45}, []float64{1, 1, 1}, []string{storeMany.Name, retrieveOne.Name}},
	} {
		t.Run(c.name, func(t *testing.T) {
			measured := map[string]int{}
			script := map[string][]float64{storeMany.Name: c.many, storeOne.Name: c.one, retrieveOne.Name: c.retrieved}
			g := Gate{Fraction: c.fraction, Tries: 3, Measure: scripted(script, measured), Done: func(int, *Ratio, float64, bool) {}}
			err := g.Run(context.Background())
			for name, ratios := range script {
				require.Equal(t, len(ratios), measured[name], name)
			}
			if c.short == nil {
				require.NoError(t, err)
				return
			}
			for _, name := range c.short {
				require.ErrorContains(t, err, name)
			}
			require.NotContains(t, err.Error(), storeOne.Name)
		})
	}
}

// TestGateTakesTheBest checks that rounds in which the machine was busy do not
// count, on either side, and that the gate waits before each try.
func TestGateTakesTheBest(t *testing.T) {
	settled := 0
	g := Gate{Fraction: 1, Tries: 2, Settle: func(context.Context) error { settled++; return nil }}
	for _, c := range []struct {
		rounds []Round
		enough bool
	}{
		{[]Round{{1000, 100}, {200, 1000}, {500, 200}}, true},
		{[]Round{{1000, 700}, {100, 500}, {100, 300}}, false}, // a slow floor alone does not help
	} {
		settled = 0
		g.Measure = func(_ context.Context, _ func(Target) bool, done func(*Ratio)) error {
			done(&Ratio{Target: storeMany, Rounds: c.rounds})
			return nil
		}
		g.Done = func(_ int, _ *Ratio, _ float64, enough bool) { require.Equal(t, c.enough, enough) }
		err := g.Run(context.Background())
		require.Equal(t, c.enough, err == nil)
		if c.enough {
			require.Equal(t, 1, settled)
		} else {
			require.Equal(t, 2, settled)
		}
	}
}

func TestSettle(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*quietTime)
	defer cancel()
	waited, busy, err := Settle(ctx)
	if err != nil { // the other tests keep the machine busy
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Greater(t, busy, quietShare)
	}
	require.GreaterOrEqual(t, waited, quietTime)
	require.LessOrEqual(t, busy, 1.0)
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	_, _, err = Settle(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestGateOfNothing(t *testing.T) {
	broken := errors.New("broken")
	g := Gate{Fraction: 1, Tries: 3, Done: func(int, *Ratio, float64, bool) {}}
	g.Measure = func(context.Context, func(Target) bool, func(*Ratio)) error { return broken }
	require.ErrorIs(t, g.Run(context.Background()), broken)
	g.Measure = func(context.Context, func(Target) bool, func(*Ratio)) error { return nil }
	require.Error(t, g.Run(context.Background()), "a gate that measured nothing holds nothing")
}

// TestSuite measures every target for real, too briefly for the ratios to mean
// much, but not for a store that does nothing.
func TestSuite(t *testing.T) {
	got := map[string]bool{}
	s := Suite{Dir: t.TempDir(), Rounds: 1, Time: 30 * time.Millisecond, Preload: 2000, Done: func(r *Ratio) {
		got[r.Name] = true
		require.Positive(t, r.Median().Floor, r.Name)
		require.Positive(t, r.Median().Subject, r.Name)
		require.Less(t, r.Median().Ratio(), 100.0, r.Name)
	}}
	require.NoError(t, s.Run(context.Background()))
	for _, target := range []Target{storeMany, storeOne, storeSmall, storeLarge, presentRaw, presentText, retrieveOne, openNew, openReused, preloaded(2000)} {
		require.True(t, got[target.Name], target.Name)
	}
}
