package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// resolveRecord is what resolve prints of a path in JSON.
type resolveRecord struct {
	Path string `json:"path"`
	ID   string `json:"id"`
}

func (a *app) resolveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resolve PATH…",
		Short: "Find what was adopted by the paths that it had",
		Long: `Print the ID of what 'mediabolt adopt' made of each path: for what an application
remembers of its old store. Paths are spelled as there, and need not exist any more.`,
		Example: `  mediabolt resolve /var/lib/promptkit/sessions/s1/9f86d081.png
  mediabolt get "$(mediabolt resolve media/sessions/s1/9f86d081.png)" -o photo.png`,
		Args: some("PATH"),
		RunE: func(cmd *cobra.Command, paths []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				return a.each(ctx, len(paths), "paths", func(i int) string { return paths[i] }, func(i int) error {
					ref, err := store.Resolve(ctx, paths[i])
					if err != nil {
						return err
					}
					if a.asJSON {
						return a.printJSON(resolveRecord{Path: paths[i], ID: ref.ID})
					}
					_, err = fmt.Fprintln(a.stdout, ref.ID)
					return err
				})
			})
		},
	}
}
