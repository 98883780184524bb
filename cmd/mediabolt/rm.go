package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID…",
		Short: "Delete what was stored",
		Long: `Delete the references with these IDs. The bytes go with the last reference that
shares them. An ID that is not there is a success, since nothing of it is left: so
a deletion can be repeated. What was reported as deleted survives a power cut. What
a hold is on stays: see 'mediabolt hold'.`,
		Example: `  mediabolt rm ID
  mediabolt ls --session s1 --json | jq -r .id | xargs mediabolt rm`,
		Args:              some("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				return a.each(ctx, len(ids), "IDs", func(i int) string { return ids[i] },
					func(i int) error { return a.remove(ctx, store, ids[i]) })
			})
		},
	}
}

// rmRecord is what rm prints in JSON.
type rmRecord struct {
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`    // false: it was not there
	Left    int64  `json:"references"` // that still share the bytes
}

func (a *app) remove(ctx context.Context, store *engine.FileStore, id string) error {
	ref := &storage.StorageReference{ID: id}
	entry, err := store.Stat(ctx, ref)
	there := err == nil
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err := store.Delete(ctx, ref); err != nil {
		return err
	}
	switch {
	case a.asJSON:
		return a.printJSON(rmRecord{ID: id, Deleted: there, Left: max(entry.Refs-1, 0)})
	case !there:
		a.note("%s was not there", id)
		return nil
	}
	fate := "its bytes are gone"
	if entry.Refs > 1 {
		fate = fmt.Sprintf("its bytes stay: other references: %d", entry.Refs-1)
	}
	_, err = fmt.Fprintf(a.stdout, "%s  deleted, %s\n", id, fate)
	return err
}
