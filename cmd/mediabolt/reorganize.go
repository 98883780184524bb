package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) reorganizeCommand() *cobra.Command {
	var to string
	var options engine.ReorganizeOptions
	cmd := &cobra.Command{
		Use:   "reorganize --to MODE",
		Short: "Move all blobs to the directories of another organization",
		Long: `Give every blob the path that it would have had if the store had always had this
organization: flat, by-conversation, by-session or by-run. New media are stored that
way from now on. IDs and names of files stay; only directories change.

Each blob is at its old path or at its new one at any moment, whatever happens. An
interrupted run leaves some here and some there, and can be repeated to go on.`,
		Example: `  mediabolt reorganize --to by-run --dry-run
  mediabolt reorganize --to by-run`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usagef("--to MODE is missing: flat, by-conversation, by-session or by-run")
			}
			return a.reorganize(cmd.Context(), storage.OrganizationMode(to), options)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "`MODE`: flat, by-conversation, by-session or by-run")
	flags.BoolVar(&options.DryRun, "dry-run", false, "move nothing, say how much would be moved")
	modes := make([]string, 0, len(storage.OrganizationModes()))
	for _, mode := range storage.OrganizationModes() {
		modes = append(modes, string(mode))
	}
	if err := cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

func (a *app) reorganize(ctx context.Context, to storage.OrganizationMode, options engine.ReorganizeOptions) error {
	options.To = to
	config := engine.FileStoreConfig{NoCreate: true, EnableDeduplication: true}
	if !options.DryRun {
		config.Organization = to
	}
	return a.withStore(ctx, config, func(store *engine.FileStore) error {
		p := a.newProgress("moving", "blobs")
		options.Progress = func(done engine.Reorganization, blobs int64) { p.set(done.Blobs, blobs) }
		done, err := store.Reorganize(ctx, options)
		p.clear()
		if errors.Is(err, context.Canceled) {
			err = &interruptedError{"interrupted after " + count(int(done.Blobs), "blob")}
		}
		if err != nil {
			return hinted(err, "what was moved stays so; the same command goes on")
		}
		return a.printReorganization(&done, options.DryRun)
	})
}

func (a *app) printReorganization(done *engine.Reorganization, dry bool) error {
	if a.asJSON {
		if err := a.printJSON(done); err != nil {
			return err
		}
	} else {
		for _, f := range done.Failures {
			a.note("%s stays: %s", f.Path, f.Reason)
		}
		verb := "moved"
		if dry {
			verb = "would move"
		}
		if _, err := fmt.Fprintf(a.stdout, "%s %d of %d blobs, %s, to %s\n", verb, done.Moved, done.Blobs, humanBytes(done.Bytes), done.To); err != nil {
			return err
		}
	}
	if done.Failed > 0 {
		return &batchError{fmt.Sprintf("%d blobs were not moved", done.Failed), outcome{"some_failed", exitSome, "'mediabolt verify' says what is wrong with them"}}
	}
	return nil
}
