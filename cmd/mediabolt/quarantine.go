package main

import (
	"context"
	"errors"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "List, bring back or remove what repair has moved away",
		Long: `What 'mediabolt repair --apply' moves away lies below .mediabolt/quarantine in the
store, a directory for each repair (a batch), with a manifest of JSON Lines that says
what each file was and why it was moved. Nothing there goes by itself.`,
		Example: `  mediabolt quarantine ls
  mediabolt quarantine restore BATCH
  mediabolt quarantine purge --older-than 30d`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.add(cmd, "", a.quarantineLsCommand(), a.quarantineRestoreCommand(), a.quarantinePurgeCommand())
	return cmd
}

func (a *app) quarantineLsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is in the quarantine",
		Long: `List the files in the quarantine, the oldest batch first, and what else its manifests
tell: sidecars that a repair has written, and references that it has ended because
their bytes were lost. The latter are whole, with all their IDs and labels, in the
manifest itself.`,
		Example: `  mediabolt quarantine ls
  mediabolt quarantine ls --json | jq -r 'select(.reference) | .reference'`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.checkFormat(format); err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error { return a.listQuarantine(ctx, store) })
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`FORMAT`: table (default), or json, which is the same as --json")
	if err := cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatTable, formatJSON}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

func (a *app) listQuarantine(ctx context.Context, store *engine.FileStore) error {
	rows := newTable(a.stdout)
	listed := 0
	for item, err := range store.Quarantine(ctx) {
		if err != nil {
			return err
		}
		listed++
		if a.asJSON {
			err = a.printJSON(&item)
		} else {
			err = rows.item(&item, listed == 1)
		}
		if err != nil {
			return err
		}
	}
	if listed == 0 && !a.asJSON {
		a.note("the quarantine is empty")
	}
	return rows.end()
}

// item prints a row of the quarantine.
func (t *table) item(item *engine.QuarantineItem, first bool) error {
	if first {
		if err := t.row("BATCH", "WHAT", "    SIZE", "MOVED", "PATH"); err != nil {
			return err
		}
	}
	what, path := string(item.Kind), item.Path
	switch {
	case item.Written:
		what = "written"
	case item.Reference != "":
		what, path = "lost", item.Reference+" of "+item.Path
	}
	return t.row(item.Batch, what, size(item.Size), humanize.Time(item.At), path)
}

func (a *app) quarantineRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore BATCH [PATH…]",
		Short: "Undo a repair: bring files back to where they were",
		Long: `Move the files of a batch back to where they were, all of them or those of the paths
given, relative to the store. No file is moved over another: a sidecar that the repair
has written goes to a batch of its own, if nothing was added to it since; every other
file stays, and that is said. References that were ended stay so: rebuilding the index
from the sidecars, when these are back, brings them back.`,
		Example: `  mediabolt quarantine restore 20260301T123000Z-06h0aeyy8hrzvc6fkc554h3rsg
  mediabolt quarantine restore BATCH s1/c1/a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg.png`,
		Args:              some("BATCH"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error { return a.restoreBatch(ctx, store, args[0], args[1:]) })
		},
	}
}

func (a *app) restoreBatch(ctx context.Context, store *engine.FileStore, batch string, paths []string) error {
	left := 0
	rows := newTable(a.stdout)
	for r, err := range store.RestoreQuarantine(ctx, batch, paths...) {
		if errors.Is(err, storage.ErrInvalidQuery) {
			return hinted(err, "'mediabolt quarantine ls' lists what is there")
		} else if err != nil {
			return errors.Join(err, rows.end())
		}
		what := "restored"
		if !r.Done {
			what = "left"
			left++
		}
		if a.asJSON {
			err = a.printJSON(&r)
		} else {
			err = rows.row(what, r.Path, r.Detail)
		}
		if err != nil {
			return err
		}
	}
	if err := rows.end(); err != nil {
		return err
	}
	if left > 0 {
		return &batchError{count(left, "file") + " left in the quarantine", outcome{code: "some_failed", exit: exitSome}}
	}
	return nil
}

func (a *app) quarantinePurgeCommand() *cobra.Command {
	var older string
	cmd := &cobra.Command{
		Use:   "purge --older-than AGE",
		Short: "Remove old batches for good",
		Long: `Remove every batch of the quarantine that was made longer ago than an age, with its
manifest. This is the one way in which what a repair has moved away is deleted.`,
		Example: `  mediabolt quarantine purge --older-than 30d
  mediabolt quarantine purge --older-than 0s`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if older == "" {
				return usagef("--older-than AGE is missing: say 30d, or 0s for everything")
			}
			age, err := parseAge("older-than", older)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error { return a.purgeBatches(ctx, store, age) })
		},
	}
	cmd.Flags().StringVar(&older, "older-than", "", "remove what was moved away longer ago than `AGE`: 30d, 36h, 0s")
	return cmd
}

func (a *app) purgeBatches(ctx context.Context, store *engine.FileStore, age time.Duration) error {
	rows := newTable(a.stdout)
	purged, files := 0, 0
	show := a.newProgress("purging", "files")
	defer show.clear()
	for b, err := range store.PurgeQuarantine(ctx, time.Now().Add(-age), show.set) {
		show.clear()
		if errors.Is(err, context.Canceled) {
			err = hinted(&interruptedError{"interrupted after " + count(files, "file")}, "run it again for the rest")
		}
		if err != nil {
			return errors.Join(err, rows.end())
		}
		purged++
		files += int(b.Files)
		if a.asJSON {
			err = a.printJSON(&b)
		} else {
			err = rows.row("purged", b.Batch, count(int(b.Files), "file"), humanBytes(b.Bytes))
		}
		if err != nil {
			return err
		}
	}
	if purged == 0 && !a.asJSON {
		a.note("no batch is that old")
	}
	return rows.end()
}
