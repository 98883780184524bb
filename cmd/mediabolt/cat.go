package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat ID",
		Short: "Write stored bytes to standard output",
		Long: `Write what was stored as ID to standard output, checked on the way. Where the
bytes are damaged, the output ends before the last of them and the exit code is 12:
look at the exit code before you use the output, or use 'mediabolt get', which
leaves no damaged file. With --json, only errors are JSON.`,
		Example: `  mediabolt cat ID | ffplay -
  mediabolt cat ID | sha256sum`,
		Args:              exactly(1, "ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := &storage.StorageReference{ID: args[0]}
			return a.withExisting(cmd.Context(), func(store *engine.FileStore) error {
				if err := a.copyBlob(cmd.Context(), store, ref, a.stdout); err != nil {
					return &itemError{err, args[0]}
				}
				return nil
			})
		},
	}
}

// copyBlob writes the verified bytes of a reference to w.
func (a *app) copyBlob(ctx context.Context, store *engine.FileStore, ref *storage.StorageReference, w io.Writer) (err error) {
	blob, err := store.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	show := a.newProgress("reading", "")
	show.total = blob.Size()
	defer show.clear()
	_, err = blob.WriteTo(watchedWriter{interruptibleWriter{ctx, w}, show})
	return storage.Classify(err)
}
