package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mediabolt/mediabolt/bench"
)

// gcPercent is GOGC of the measurement: with the tiny heap of a benchmark the
// collector would run for every third megabyte, and that would be what is
// measured, of floor and store alike.
const gcPercent = 1600

func ratios(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mediabench ratios", flag.ContinueOnError)
	s := suite(flags, 5, 2*time.Second)
	flags.IntVar(&s.Preload, "preload", 1_000_000, "references in the large index; 0: none")
	flags.Func("only", "measure only the ratios whose names match this `regexp`", func(text string) error {
		re, err := regexp.Compile(text)
		s.Only = func(t bench.Target) bool { return re.MatchString(t.Name) }
		return err
	})
	if err := parse(flags, s, args); err != nil {
		return err
	}
	fmt.Printf("%d cores, %s/%s, %s; GOGC=%d; durable writes, median of %d rounds of %s\n\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), gcPercent, s.Rounds, s.Time)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tper second\tfloor\tper second\tratio\twanted\t")
	s.Done = func(r *bench.Ratio) {
		m := r.Median()
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%.0f\t%.2f\t%.2f\t\n", r.Name, m.Subject, r.Floor, m.Floor, m.Ratio(), r.Want)
		fmt.Fprintf(os.Stderr, "measured: %s\n", r.Name)
	}
	if err := s.Run(ctx); err != nil {
		return err
	}
	return w.Flush()
}

// gate measures, and is an error when a ratio falls short.
func gate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mediabench gate", flag.ContinueOnError)
	s := suite(flags, 5, 400*time.Millisecond)
	g := bench.Gate{Fraction: 1}
	flags.IntVar(&g.Tries, "tries", 3, "how often what falls short is measured, at most")
	flags.Func("thresholds", "`percentage` of the wanted ratios that is enough, as 70%", func(text string) error {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if err == nil && percent <= 0 {
			err = fmt.Errorf("%s holds nothing", text)
		}
		g.Fraction = percent / 100
		return err
	})
	if err := parse(flags, s, args); err != nil {
		return err
	}
	g.Measure = func(ctx context.Context, only func(bench.Target) bool, done func(*bench.Ratio)) error {
		s.Only, s.Done = only, done
		return s.Run(ctx)
	}
	g.Settle = func(ctx context.Context) error {
		waited, busy, err := bench.Settle(ctx)
		if err == nil {
			fmt.Printf("waited %s, cores busy: %.0f %%\n", waited.Round(100*time.Millisecond), 100*busy)
		}
		return err
	}
	g.Done = func(try int, r *bench.Ratio, least float64, enough bool) {
		fmt.Printf("try %d: %-50s %.2f, at least %.2f, enough: %t\n", try, r.Name, r.Best().Ratio(), least, enough)
	}
	return g.Run(ctx)
}

func suite(flags *flag.FlagSet, rounds int, d time.Duration) *bench.Suite {
	s := &bench.Suite{}
	flags.StringVar(&s.Dir, "dir", os.TempDir(), "scratch `directory`, on the filesystem to be measured")
	flags.IntVar(&s.Rounds, "rounds", rounds, "measurements of floor and of store per ratio, in turn")
	flags.DurationVar(&s.Time, "time", d, "length of one measurement")
	return s
}

func parse(flags *flag.FlagSet, s *bench.Suite, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || s.Rounds < 1 || s.Time <= 0 || s.Preload < 0 {
		return fmt.Errorf("arguments %q: see -help", args)
	}
	return nil
}
