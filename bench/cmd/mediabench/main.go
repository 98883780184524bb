// Command mediabench measures mediabolt against the floors of the machine it
// runs on, and prints the ratios as a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"github.com/mediabolt/mediabolt/bench"
)

// gcPercent is GOGC of the measurement.
const gcPercent = 1600

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mediabench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mediabench", flag.ContinueOnError)
	s := bench.Suite{}
	flags.StringVar(&s.Dir, "dir", os.TempDir(), "scratch `directory`, on the filesystem to be measured")
	flags.IntVar(&s.Rounds, "rounds", 5, "measurements per ratio; the median is printed")
	flags.DurationVar(&s.Time, "time", 2*time.Second, "length of one measurement")
	flags.IntVar(&s.Preload, "preload", 1_000_000, "references in the large index")
	flags.Func("only", "measure only the ratios whose names match this `regexp`", func(text string) (err error) {
		s.Only, err = regexp.Compile(text)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || s.Rounds < 1 || s.Time <= 0 || s.Preload < 1 {
		return fmt.Errorf("arguments %q: see mediabench -help", args)
	}
	// With the tiny heap of a benchmark the collector would run for every third
	// megabyte, and that would be what is measured, of floor and store alike.
	debug.SetGCPercent(gcPercent)
	fmt.Printf("%d cores, %s/%s, %s; GOGC=%d; durable writes, median of %d rounds of %s\n\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), gcPercent, s.Rounds, s.Time)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tper second\tfloor\tper second\tratio\taim\t")
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
