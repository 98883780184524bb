package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// expire is one run of the command expire.
type expire struct {
	app  *app
	opts engine.ExpireOptions
}

func (a *app) expireCommand() *cobra.Command {
	x := &expire{app: a}
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "End what is over by its retention policy",
		Long: `End every reference whose time is over, and remove the bytes that no other reference
shares. What holds keep stays, and is counted. It costs what is over, however much is
stored. Interrupted, it leaves the rest as it was: run it again.

With --dry-run nothing is ended and the report is the same. 'mediabolt ls
--expires-before 0s' lists what is over.`,
		Example: `  mediabolt expire --dry-run
  mediabolt expire --rate 1000`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if x.opts.Rate < 0 {
				return usagef("--rate %d is negative", x.opts.Rate)
			}
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error { return x.run(ctx, store) })
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&x.opts.DryRun, "dry-run", false, "only say what would be ended")
	flags.IntVar(&x.opts.Rate, "rate", 0, "end at most `N` references a second; 0 is as fast as it goes")
	return cmd
}

// expireRecord is what expire prints in JSON.
type expireRecord struct {
	DryRun       bool            `json:"dry_run"`
	References   int64           `json:"references"`
	LogicalBytes int64           `json:"logical_bytes"` // of these references
	Blobs        int64           `json:"blobs"`
	FreedBytes   int64           `json:"freed_bytes"` // of these blobs
	Held         int64           `json:"held"`        // references that are over and stay
	Failed       int64           `json:"failed"`
	Failures     []expireFailure `json:"failures"` // the first of them
}

type expireFailure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func (x *expire) run(ctx context.Context, store *engine.FileStore) error {
	show := x.app.newProgress("expiring", "references")
	x.opts.Progress = func(done engine.Expired) { show.set(done.References+done.Held+done.Failed, done.Due) }
	done, err := store.Expire(ctx, x.opts)
	show.clear()
	nothing := done.References == 0 && done.Failed == 0
	switch {
	case nothing && errors.Is(err, context.Canceled):
		return hinted(&interruptedError{"interrupted"}, "nothing was ended: run it again")
	case nothing && err != nil:
		return err
	}
	if printed := x.print(&done); printed != nil || err != nil {
		if err == nil {
			err = printed
		}
		return hinted(err, "what was reported is done, the rest is not: run it again")
	}
	if done.Failed > 0 {
		return &batchError{
			fmt.Sprintf("%s could not be ended; the first: %v", counted(done.Failed, "reference"), done.Failures[0].Err),
			combine([]outcome{outcomeOf(done.Failures[0].Err)}, int(min(1+done.References, 2))),
		}
	}
	return nil
}

func (x *expire) print(done *engine.Expired) error {
	if x.app.asJSON {
		record := expireRecord{
			DryRun: x.opts.DryRun, References: done.References, LogicalBytes: done.LogicalBytes, Blobs: done.Blobs,
			FreedBytes: done.FreedBytes, Held: done.Held, Failed: done.Failed, Failures: []expireFailure{},
		}
		for _, f := range done.Failures {
			record.Failures = append(record.Failures, expireFailure{f.ID, oneLine(f.Err.Error())})
		}
		return x.app.printJSON(record)
	}
	ended, freed := "ended", "freed"
	if x.opts.DryRun {
		ended, freed = "would end", "free"
	}
	_, err := fmt.Fprintf(x.app.stdout, "%s %s and %s %s in %s; %s stay with other references\n", ended, counted(done.References, "reference"),
		freed, humanBytes(done.FreedBytes), counted(done.Blobs, "blob"), humanBytes(done.LogicalBytes-done.FreedBytes))
	if err == nil && done.Held > 0 {
		_, err = fmt.Fprintf(x.app.stdout, "kept by holds, although over: %s\n", counted(done.Held, "reference"))
	}
	return err
}
