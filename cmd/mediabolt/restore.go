package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) restoreCommand() *cobra.Command {
	var opts engine.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore SRC DEST",
		Short: "Make a store of a backup",
		Long: `Make DEST, a directory that is new or empty, the store that the backup in SRC shows.
The backup's index is checked first, all bytes as they are copied, and the whole
store in the end. --store has no meaning here. The backup stays as it is, but must be
writable and not be open.

What was erased after the backup does not come back: that is told by the ledger of
the store that the backup was made of, where it is still in its directory, and by
those of other stores and newer backups that --ledger names.

A restore that was interrupted is continued when it is run again; until it is done,
nothing opens DEST. Damaged files are named and left out, with exit code 12; the
store is whole then all the same.`,
		Example: `  mediabolt restore /mnt/disk/media ~/media
  mediabolt restore --link ../media-backup ../media`,
		Args: exactly(2, "SRC or DEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), args[0], args[1], opts) },
	}
	cmd.Flags().StringArrayVar(&opts.Ledgers, "ledger", nil, "`DIR` of a store or backup whose erasures are honoured; may be given again")
	cmd.Flags().BoolVar(&opts.Link, "link", false, "share files with the backup where possible: no copy against damage of the disk")
	return cmd
}

func (a *app) restore(ctx context.Context, source, dest string, opts engine.RestoreOptions) error {
	begun := time.Now()
	opts.Config = engine.FileStoreConfig{EnableDeduplication: true, LockTimeout: a.lockTimeout, Logger: a.logger()}
	if a.lockTimeout == 0 {
		opts.Config.LockTimeout = -1
	}
	show := a.newProgress("restoring", "")
	opts.Progress = show.backup
	done, err := engine.Restore(ctx, source, dest, opts)
	show.clear()
	if errors.Is(err, storage.ErrNoStore) {
		err = hinted(err, "name the directory that 'mediabolt backup' was given; --ledger takes stores too")
	}
	return a.tellBackup("restore", dest, &done, time.Since(begun), err)
}
