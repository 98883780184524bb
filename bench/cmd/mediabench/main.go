// Command mediabench measures mediabolt, its floors and its rivals.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
	"github.com/mediabolt/mediabolt/bench/plan"
	"github.com/mediabolt/mediabolt/bench/report"
)

const usage = `mediabench ratios   the ratios to the floors, alternating, as a table
mediabench gate     the same, held to thresholds
mediabench run      a profile, cell by cell, into a results file
mediabench report   a page and plots of a results file
Each has -help.`

func main() {
	if len(os.Args) == 2 && os.Args[1] == cell.Arg {
		exit(cell.Child())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(run(ctx, os.Args[1:]))
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mediabench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command given: %s", strings.TrimSpace(usage))
	}
	switch args[0] {
	case "ratios":
		debug.SetGCPercent(gcPercent)
		return ratios(ctx, args[1:])
	case "gate":
		debug.SetGCPercent(gcPercent)
		return gate(ctx, args[1:])
	case "run":
		return measure(ctx, args[1:])
	case "report":
		return write(args[1:])
	}
	return fmt.Errorf("no such command: %q\n%s", args[0], usage)
}

func measure(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mediabench run", flag.ContinueOnError)
	r := driver.Run{Progress: os.Stderr, Measure: cell.Measure, Fill: cell.Fill}
	flags.StringVar(&r.Profile, "profile", "quick", "quick, full or scale")
	flags.StringVar(&r.Dir, "dir", os.TempDir(), "scratch `directory`, on the filesystem to be measured")
	flags.StringVar(&r.Out, "out", "results.json", "results `file`; what it has is not measured again")
	flags.BoolVar(&r.Mix, "mix", false, "go on with results of another revision or machine; the report says so")
	flags.Func("only", "measure only what this `regexp` matches of \"series name\"", func(text string) (err error) {
		r.Only, err = regexp.Compile(text)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if r.Revision, err = codeRevision(); err != nil {
		return err
	}
	if r.Series, err = plan.Profile(r.Profile); err != nil {
		return err
	}
	return r.Do(ctx)
}

func write(args []string) error {
	flags := flag.NewFlagSet("mediabench report", flag.ContinueOnError)
	dir := flags.String("o", "report", "`directory` for the page and the plots")
	in := "results.json"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		in, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	lines, _, err := driver.Read(in)
	if err != nil {
		return err
	}
	return report.Write(lines, *dir)
}
