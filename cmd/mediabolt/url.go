package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// urlRecord is what url prints of a reference in JSON.
type urlRecord struct {
	ID  string `json:"id"`
	URL string `json:"url"`
}

func (a *app) urlCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "url ID…",
		Short: "Print file URLs for programs on this machine",
		Long: `Print the file URL of what was stored under each ID, one a line, for a browser or a
player on this machine. The file is the store's own: read it, do not write to it.
What is read through the URL is not verified, as 'mediabolt get' and 'cat' do. The
URL is good until the bytes are deleted; the same bytes stored again get another.`,
		Example: `  mediabolt url ID
  xdg-open "$(mediabolt url ID)"`,
		Args:              some("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				return a.each(ctx, len(ids), "IDs", func(i int) string { return ids[i] }, func(i int) error {
					to, err := store.URL(ctx, &storage.StorageReference{ID: ids[i]})
					if err != nil {
						return err
					}
					if a.asJSON {
						return a.printJSON(urlRecord{ID: ids[i], URL: to})
					}
					_, err = fmt.Fprintln(a.stdout, to)
					return err
				})
			})
		},
	}
}
