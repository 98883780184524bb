package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

func (a *app) compactCommand() *cobra.Command {
	var options engine.CompactOptions
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Make the index as small as what it holds allows",
		Long: `Copy the index into a new file without free pages and put that in the place of the
old one. Whatever interrupts it, one of the two is the index, whole. Until then both
need room: --dry-run says how much, and a disk with less is refused before
anything is done.

What was deleted before is in no file of the index afterwards, its log included.

Stores and deletions of the same program go on meanwhile; how long one can have
waited while the files were swapped is said at the end.

A program that has the store open does the same by itself when more than half of
the index's file is free, and more than 16 MiB.`,
		Example: `  mediabolt compact --dry-run
  mediabolt compact`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.compact(cmd.Context(), options) },
	}
	cmd.Flags().BoolVar(&options.DryRun, "dry-run", false, "change nothing, say what there is to gain and what room it needs")
	return cmd
}

func (a *app) compact(ctx context.Context, options engine.CompactOptions) error {
	return a.withExisting(ctx, func(store *engine.FileStore) error {
		p := a.newProgress("compacting", "")
		options.Progress = p.set
		done, err := store.Compact(ctx, options)
		p.clear()
		switch {
		case ctx.Err() != nil && err != nil:
			return hinted(&interruptedError{"interrupted; the index is as it was"}, "run it again: it begins anew")
		case err != nil:
			return err
		case a.asJSON:
			return a.printJSON(done)
		case options.DryRun:
			_, err = fmt.Fprintf(a.stdout, "index of %s: about %s after a compaction, which needs %s of room meanwhile%s\n",
				humanBytes(done.Before), humanBytes(done.After), humanBytes(done.Need), freeRoom(done.Room))
		default:
			_, err = fmt.Fprintf(a.stdout, "index of %s: now %s, in %s; stores can have waited for %s\n",
				humanBytes(done.Before), humanBytes(done.After), done.Duration.Round(time.Millisecond), done.Pause.Round(time.Microsecond))
		}
		return err
	})
}

// freeRoom says how much room a disk has, where that is known.
func freeRoom(bytes int64) string {
	if bytes < 0 {
		return ""
	}
	return " (" + humanBytes(bytes) + " are free)"
}
