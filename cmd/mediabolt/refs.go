package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) refsCommand() *cobra.Command {
	l := &listing{app: a}
	cmd := &cobra.Command{
		Use:   "refs ID|SHA256",
		Short: "List everyone who has the same bytes",
		Long: `List every reference to the bytes that an ID names or that have a SHA-256 digest:
those that share the file, and copies that were put with --no-dedup. JSON and CSV
tell by the path who shares with whom. Deleting one never harms the others.`,
		Example: `  mediabolt refs ID
  mediabolt refs "$(sha256sum < photo.png | cut -d ' ' -f 1)"
  mediabolt refs --json ID | jq -r .session_id`,
		Args:              exactly(1, "ID or SHA-256 digest"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return l.refs(cmd.Context(), args[0]) },
	}
	cmd.Flags().SortFlags = false
	l.addFlags(cmd)
	return cmd
}

func (l *listing) refs(ctx context.Context, what string) error {
	if err := l.check(); err != nil {
		return err
	}
	return l.app.withExisting(ctx, func(store *engine.FileStore) error {
		digest, err := digestOf(ctx, store, what)
		if err != nil {
			return &itemError{err, what}
		}
		l.query.Digest = digest
		listed, err := l.run(ctx, store)
		if err == nil && listed == 0 && l.query.Cursor == "" {
			err = &itemError{fmt.Errorf("%w: no reference to bytes with SHA-256 %s", storage.ErrNotFound, digest), what}
		}
		return err
	})
}

// digestOf is the digest that what is, or of the bytes of the reference that it
// names.
func digestOf(ctx context.Context, store *engine.FileStore, what string) (storage.Digest, error) {
	if digest, err := storage.ParseDigest(what); err == nil && !digest.IsZero() {
		return digest, nil
	}
	entry, err := store.Stat(ctx, &storage.StorageReference{ID: what})
	if err == nil && entry.Digest.IsZero() {
		err = errors.New("the SHA-256 of its bytes is not known")
	}
	return entry.Digest, err
}
