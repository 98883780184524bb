package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
)

func (a *app) indexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "index",
		Short: "Print the index for other tools",
		Args:  none,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.add(cmd, "", a.indexDumpCommand())
	return cmd
}

func (a *app) indexDumpCommand() *cobra.Command {
	format := formatJSON
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Print the index as one JSON object",
		Long: `Print the index as one JSON object, a blob a line, for tools that read the file
.dedup-index.json of other stores:

  "sha256:<hex>": {"hash", "path", "size", "mime_type", "ref_count", "created_at",
                   "last_accessed"}

Paths are relative to the store. ref_count is how many deletions it takes until the
bytes go. Bytes that are in a file of their own, put with --no-dedup, have "#" and the
name of that file behind the digest. References with their IDs and labels are not in
this format: 'mediabolt ls --json' prints those.`,
		Example: `  mediabolt index dump > .dedup-index.json
  mediabolt index dump | jq -r 'to_entries[] | select(.value.ref_count > 1) | .value.path'`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != formatJSON {
				return usagef("--format %q: want json", format)
			}
			return a.dumpIndex(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&format, "format", formatJSON, "`FORMAT`: json")
	if err := cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatJSON}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

func (a *app) dumpIndex(ctx context.Context) error {
	return a.withExisting(ctx, func(store *engine.FileStore) error {
		dumped, err := adopt.Dump(ctx, store, a.stdout)
		if err == nil && dumped.Nameless > 0 {
			a.note("%s left out, whose digest is not known", count(int(dumped.Nameless), "blob"))
		}
		return err
	})
}
