package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

func (a *app) holdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hold",
		Short: "Keep media from being deleted, with named holds",
		Long: `A hold, such as a legal hold or a pin, keeps media from being deleted until it is
released. It is on one reference, or on every reference of a session, conversation,
run or user, those included that are stored later. It has a name, which may be on
many of these, and each of these may have many holds: only when the last of them is
released can be deleted what they were on.

Holds survive a power cut, and are kept apart from the index, in .mediabolt/holds.
Should that file be damaged nothing is deleted until it is restored.`,
		Example: `  mediabolt hold add "case 17" --user u1 --reason "order of the court" --by legal
  mediabolt hold ls
  mediabolt hold rm "case 17" --user u1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.add(cmd, "", a.holdAddCommand(), a.holdRmCommand(), a.holdLsCommand())
	return cmd
}

// targetFlags say what a hold is on.
type targetFlags struct {
	ids [5][]string // in the order of targetKinds
}

// targetKinds are the kinds of target with the flags that name them.
var targetKinds = [...]struct {
	kind       engine.HoldKind
	flag, what string
}{
	{engine.HoldSession, "session", "the session with this `ID`"},
	{engine.HoldConversation, "conversation", "the conversation with this `ID`"},
	{engine.HoldRun, "run", "the run with this `ID`"},
	{engine.HoldUser, "user", "the user with this `ID`"},
	{engine.HoldReference, "ref", "the reference with this `ID`"},
}

func (t *targetFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	for i, k := range targetKinds {
		cmd.Flags().StringArrayVar(&t.ids[i], k.flag, nil, k.what+"; may be given again")
	}
}

func (t *targetFlags) targets() (list []engine.HoldTarget) {
	for i, k := range targetKinds {
		for _, id := range t.ids[i] {
			list = append(list, engine.HoldTarget{Kind: k.kind, ID: id})
		}
	}
	return list
}

func (a *app) holdAddCommand() *cobra.Command {
	var t targetFlags
	var reason, by string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Put a hold into force",
		Long: `Put a hold with this NAME on everything that the flags name, or, with an error, on
none of it. When it is reported it is in force and survives a power cut. A hold that
is there already stays as it is, with its reason, so this can be repeated. A session,
conversation, run or user may be one that has nothing yet.`,
		Example: `  mediabolt hold add "case 17" --user u1 --user u2 --reason "order of the court" --by legal
  mediabolt hold add pin --ref ID`,
		Args:              exactly(1, "NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			targets := t.targets()
			if len(targets) == 0 {
				return usagef("what to hold is missing: say --session, --conversation, --run, --user or --ref")
			}
			return a.addHolds(cmd.Context(), engine.Hold{Name: args[0], Reason: reason, By: by}, targets)
		},
	}
	t.addTo(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for those who ask why")
	cmd.Flags().StringVar(&by, "by", "", "`WHO` orders it")
	return cmd
}

func (a *app) addHolds(ctx context.Context, h engine.Hold, targets []engine.HoldTarget) error {
	var list []engine.Hold
	for _, h.Target = range targets {
		list = append(list, h)
	}
	return a.withExisting(ctx, func(store *engine.FileStore) error {
		if err := store.Hold(ctx, list...); err != nil {
			return err
		}
		for held, err := range store.Holds(ctx, h.Name) {
			if err != nil {
				return err
			}
			for _, t := range targets {
				if t == held.Target {
					if err := a.printHold(held, "holds"); err != nil {
						return err
					}
					break
				}
			}
		}
		return nil
	})
}

func (a *app) holdRmCommand() *cobra.Command {
	var t targetFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Release a hold",
		Long: `Release the hold with this NAME from everything that the flags name, or from all that
it is on with --all. One that is not there is a success, so this can be repeated. What
was on hold stays; but it can be deleted when no other hold is on it.`,
		Example: `  mediabolt hold rm "case 17" --user u1
  mediabolt hold rm "case 17" --all`,
		Args:              exactly(1, "NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			targets := t.targets()
			switch {
			case len(targets) == 0 && !all:
				return usagef("what to release is missing: say --session, --conversation, --run, --user, --ref or --all")
			case len(targets) > 0 && all:
				return usagef("--all excludes the flags that name what to release")
			}
			return a.releaseHolds(cmd.Context(), args[0], targets)
		},
	}
	t.addTo(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "everything that a hold with this NAME is on")
	return cmd
}

// releaseHolds releases a hold from targets, or from all where there are none.
func (a *app) releaseHolds(ctx context.Context, name string, targets []engine.HoldTarget) error {
	return a.withExisting(ctx, func(store *engine.FileStore) (err error) {
		var released []engine.Hold
		if len(targets) == 0 {
			released, err = store.ReleaseAll(ctx, name)
		} else {
			released, err = store.Release(ctx, name, targets...)
		}
		if err != nil {
			return err
		}
		for _, h := range released {
			if err := a.printHold(h, "no longer holds"); err != nil {
				return err
			}
		}
		if len(released) == 0 {
			a.note("no such hold was there")
		}
		return nil
	})
}

// printHold tells of one hold what came of it.
func (a *app) printHold(h engine.Hold, what string) error {
	if a.asJSON {
		return a.printJSON(holdRecordOf(&h))
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %s %s %s\n", plain(h.Name), what, h.Target.Kind, plain(h.Target.ID))
	return err
}

func (a *app) holdLsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls [NAME…]",
		Short: "List the holds in force",
		Long: `List the holds in force, or those with these names, in order of name, kind and ID, as
a table, as JSON Lines or as CSV. Long texts are cut in the table alone.`,
		Example: `  mediabolt hold ls
  mediabolt hold ls "case 17" --format csv`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, names []string) (err error) {
			if format, err = a.chooseFormat(format); err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				return a.printHolds(format, store.Holds(ctx, names...))
			})
		},
	}
	addFormat(cmd, &format)
	return cmd
}

// holdRecord is a hold in JSON. Every field is always there.
type holdRecord struct {
	Name   string          `json:"name"`
	Kind   engine.HoldKind `json:"kind"`
	ID     string          `json:"id"`
	At     time.Time       `json:"at"`
	By     string          `json:"by"`
	Reason string          `json:"reason"`
}

func holdRecordOf(h *engine.Hold) holdRecord {
	return holdRecord{h.Name, h.Target.Kind, h.Target.ID, h.At, h.By, h.Reason}
}

// printHolds prints a list, also what comes before an error.
func (a *app) printHolds(format string, holds iter.Seq2[engine.Hold, error]) (err error) {
	out := bufio.NewWriter(a.stdout)
	row, end := holdTable(out)
	switch format {
	case formatJSON:
		row, end = func(h *holdRecord) error { return writeJSON(out, h) }, out.Flush
	case formatCSV:
		if row, end, err = holdCSV(out); err != nil {
			return err
		}
	}
	listed := 0
	for h, failed := range holds {
		if failed != nil {
			if err := end(); err != nil {
				return err
			}
			return hinted(failed, "") // says itself what helps
		}
		record := holdRecordOf(&h)
		if err := row(&record); err != nil {
			return err
		}
		listed++
	}
	if listed == 0 && format == formatTable {
		a.note("there are no such holds")
	}
	return end()
}

func holdTable(out *bufio.Writer) (row func(*holdRecord) error, end func() error) {
	t := newTable(out)
	row = func(h *holdRecord) error {
		if t.rows == 0 {
			if err := t.row("NAME", "KIND", "ID", "SINCE", "BY", "REASON"); err != nil {
				return err
			}
		}
		return t.row(clip(h.Name, 32), string(h.Kind), clip(h.ID, 40), humanize.Time(h.At), orDash(clip(h.By, 24)), orDash(clip(h.Reason, 60)))
	}
	return row, func() error {
		if err := t.end(); err != nil {
			return err
		}
		return out.Flush()
	}
}

// holdCSV writes RFC 4180, names in the first record: the fields of holdRecord.
func holdCSV(out *bufio.Writer) (row func(*holdRecord) error, end func() error, err error) {
	w := csv.NewWriter(out)
	row = func(h *holdRecord) error {
		return w.Write([]string{h.Name, string(h.Kind), h.ID, h.At.Format(time.RFC3339Nano), h.By, h.Reason})
	}
	end = func() error {
		w.Flush()
		return errors.Join(w.Error(), out.Flush())
	}
	return row, end, w.Write([]string{"name", "kind", "id", "at", "by", "reason"})
}
