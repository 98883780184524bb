package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// repair is one run of the command repair.
type repair struct {
	look    verify // flags and progress of the verification
	apply   bool
	options engine.RepairOptions
}

func (a *app) repairCommand() *cobra.Command {
	r := &repair{look: verify{app: a}}
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Mend what verify finds, without destroying anything",
		Long: `Verify the store, and print what could be done about what is found. With --apply,
do it: each thing is looked at again right before, and left where it is not so any
more. Nothing is deleted. What is moved goes to a batch of the quarantine, with a
manifest; 'mediabolt quarantine restore' brings it back.

  quarantine     files that look like blobs and that no row of the index names
  write_sidecar  a sidecar is written anew from the rows that it mirrors
  heal           a blob gets its bytes back, from a copy elsewhere in the store
  drop           with --drop-lost: references whose bytes are lost are ended; what
                 is left of them is kept, and they are listed, in the quarantine
  none           is left, for the reason that is said

It refuses when the index is damaged, empty or another store's, when the look at
the tree met an error, and when it would touch more than --max-share of the blobs.

Without --apply, damage that was found makes the exit code 12; with it, damage that
is left. A repair that was interrupted or killed can simply be run again.`,
		Example: `  mediabolt repair
  mediabolt repair --apply
  mediabolt repair --quick --max-share 50 --apply
  mediabolt repair --json | jq -r 'select(.action == "drop") | .path'`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&r.apply, "apply", false, "do it; without, only say what would be done")
	flags.Float64Var(&r.options.MaxShare, "max-share", engine.DefaultMaxShare, "refuse to touch more than `PERCENT` of the blobs")
	flags.BoolVar(&r.options.DropLost, "drop-lost", false, "end references whose bytes are lost, and list them in the quarantine")
	flags.BoolVar(&r.options.KnownOrphans, "known-orphans", false, "move orphans too whose sidecars tell of references that the index does not have")
	flags.BoolVar(&r.look.quick, "quick", false, "compare sizes but do not read the bytes")
	flags.BoolVar(&r.look.deep, "deep", false, "compare the SHA-256 too, where it is known")
	flags.StringVar(&r.look.rate, "rate", "", "read at most `BYTES` per second, such as 50MB")
	flags.StringVar(&r.look.format, "format", "", "`FORMAT`: table (default), or json, which is the same as --json")
	if err := cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatTable, formatJSON}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

func (r *repair) run(cmd *cobra.Command) error {
	if err := r.look.checkFlags(cmd); err != nil {
		return err
	}
	if !(r.options.MaxShare > 0 && r.options.MaxShare <= 100) {
		return usagef("--max-share %v: want a percentage, above 0 and up to 100", r.options.MaxShare)
	}
	ctx := cmd.Context()
	return r.look.app.withExisting(ctx, func(store *engine.FileStore) error {
		show := r.look.follow()
		r.options.Verify = r.look.options
		plan, err := store.PlanRepair(ctx, r.options)
		show.clear()
		switch {
		case ctx.Err() != nil:
			return hinted(&interruptedError{"interrupted"}, "nothing was changed")
		case err != nil:
			return err
		case plan.Refusal != nil || !r.apply:
			return r.propose(plan)
		}
		return r.carryOut(ctx, store, plan)
	})
}

// repairSummary is the last line of repair in JSON.
type repairSummary struct {
	Kind    string  `json:"kind"` // "summary"
	Damage  int     `json:"damage"`
	Touches int     `json:"touches"` // blobs
	Share   float64 `json:"share"`   // of the store, in percent
	Applied bool    `json:"applied"`
	Done    int     `json:"done"`
	Left    int     `json:"left"`
	Batch   string  `json:"batch"` // of the quarantine; empty: nothing was done
}

// propose prints a plan that is not carried out.
func (r *repair) propose(plan *engine.RepairPlan) error {
	todo := 0
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.Action != engine.RepairNone {
			todo++
		}
		if err := r.print("", item, item.Detail, item); err != nil {
			return err
		}
	}
	a := r.look.app
	if a.asJSON {
		if err := a.printJSON(repairSummary{Kind: "summary", Damage: plan.Damage, Touches: plan.Touches, Share: plan.Share, Left: len(plan.Items)}); err != nil {
			return err
		}
	} else if err := r.sayProposed(plan, todo); err != nil {
		return err
	}
	switch {
	case plan.Refusal != nil:
		return plan.Refusal
	case plan.Damage == 0:
		return nil
	}
	err := fmt.Errorf("%s of damage: %w", count(plan.Damage, "finding"), storage.ErrCorrupted)
	if todo == 0 {
		return hinted(err, "the lines above say what helps")
	}
	return hinted(err, "nothing was changed; with --apply it is")
}

func (r *repair) sayProposed(plan *engine.RepairPlan, todo int) error {
	verdict := "no damage in " + count(int(r.look.at.Blobs), "blob")
	if plan.Damage > 0 {
		verdict = fmt.Sprintf("%s of damage, %s to do: touches %s, %.1f %% of the store",
			count(plan.Damage, "finding"), count(todo, "thing"), count(plan.Touches, "blob"), plan.Share)
	}
	_, err := fmt.Fprintln(r.look.app.stdout, verdict)
	return err
}

// print prints an item, in JSON as record.
func (r *repair) print(mark string, item *engine.RepairItem, detail string, record any) error {
	if r.look.app.asJSON {
		return r.look.app.printJSON(record)
	}
	_, err := fmt.Fprintf(r.look.app.stdout, "%s%-13s  %-14s  %s\n               %s; %s\n",
		mark, item.Action, item.Kind, plain(orDash(item.Path)), plain(item.Found), plain(detail))
	return err
}

// repairRecord is what became of an item, in JSON.
type repairRecord struct {
	engine.RepairItem
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
}

// carryOut does what a plan says, and prints what became of it.
func (r *repair) carryOut(ctx context.Context, store *engine.FileStore, plan *engine.RepairPlan) error {
	s := repairSummary{Kind: "summary", Damage: plan.Damage, Touches: plan.Touches, Share: plan.Share, Applied: true}
	for i := range plan.Items {
		if item := &plan.Items[i]; item.Action == engine.RepairNone {
			s.Left++
			if err := r.print("left  ", item, item.Detail, repairRecord{RepairItem: *item}); err != nil {
				return err
			}
		}
	}
	var failed error
	show := r.look.app.newProgress("repairing", "things")
	show.total = int64(len(plan.Items) - s.Left)
	for result, err := range store.Repair(ctx, plan) {
		show.clear()
		if err != nil {
			failed = err
			break
		}
		if err := r.tell(&result, &s); err != nil {
			return err
		}
		show.add(1)
	}
	show.clear()
	if ctx.Err() != nil {
		failed = hinted(&interruptedError{fmt.Sprintf("interrupted after %s", count(s.Done, "repair"))},
			"what was printed is done; 'mediabolt repair --apply' goes on")
	}
	return r.finish(&s, failed)
}

// tell prints what became of an item.
func (r *repair) tell(result *engine.RepairResult, s *repairSummary) error {
	mark, detail := "done  ", result.Item.Detail
	record := repairRecord{RepairItem: result.Item, Done: result.Done}
	switch {
	case result.Done:
		s.Done++
		s.Batch = result.Batch
	case result.Err != nil:
		s.Left++
		mark, detail = "left  ", result.Err.Error()
		record.Error = detail
	default:
		mark, detail = "left  ", result.Detail
		record.Detail = detail
	}
	return r.print(mark, &result.Item, oneLine(detail), record)
}

// finish prints the summary, and answers what the command ends with.
func (r *repair) finish(s *repairSummary, failed error) error {
	a := r.look.app
	if a.asJSON {
		if err := a.printJSON(s); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(a.stdout, "%d done, %d left\n", s.Done, s.Left); err != nil {
		return err
	}
	if s.Batch != "" {
		a.note("what was moved is in the quarantine: 'mediabolt quarantine restore %s' brings it back", s.Batch)
	}
	if failed != nil || s.Left == 0 {
		return failed
	}
	return hinted(fmt.Errorf("%s of damage left: %w", count(s.Left, "finding"), storage.ErrCorrupted), "the lines above say what helps")
}

// parseAge reads a duration of a flag: 36h, 30d.
func parseAge(flag, text string) (time.Duration, error) {
	if n, isDays := strings.CutSuffix(text, "d"); isDays {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return age, nil
	}
	return 0, usagef("--%s %q: want how long ago, such as 30d or 36h", flag, text)
}
