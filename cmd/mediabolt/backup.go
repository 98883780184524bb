package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) backupCommand() *cobra.Command {
	var opts engine.BackupOptions
	cmd := &cobra.Command{
		Use:   "backup DEST",
		Short: "Make a directory a backup of the store",
		Long: `Make DEST, a directory that is new, empty, or an earlier backup of the same store,
show the store at one moment. A backup is a store itself: 'mediabolt --store DEST'
looks into it, 'mediabolt verify' reads all of it, 'mediabolt restore' makes another
store of it.

What an earlier backup has is kept, what is gone from the store is removed from it:
DEST is always the last backup, so use several in turn to keep older ones. One that
was interrupted is continued when it is run again.

On one filesystem files are shared with the store by hard links: that takes no time
and no space, and helps against deletion, but damage of the disk hits both. --copy
copies and checks all bytes, and so does every backup to another filesystem.

A store that was restored is a store of its own: it goes on in the DEST that it comes
from only with --take-over, and only while the last backup there is the one that it
was restored from. No other store can use DEST then.

Damaged files are named and left out, with exit code 12; the backup is whole then
all the same.`,
		Example: `  mediabolt backup /mnt/disk/media
  mediabolt backup --copy ../media-backup
  mediabolt verify --store /mnt/disk/media`,
		Args: exactly(1, "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0], opts) },
	}
	cmd.Flags().BoolVar(&opts.TakeOver, "take-over", false, "go on in the backup that this store was restored from")
	cmd.Flags().BoolVar(&opts.Copy, "copy", false, "copy all bytes, also where links are possible")
	return cmd
}

// backupRecord is what backup and restore print in JSON.
type backupRecord struct {
	Kind        string            `json:"kind"` // "backup" or "restore"
	Directory   string            `json:"directory"`
	At          time.Time         `json:"at"` // the moment that it shows
	References  int64             `json:"references"`
	Blobs       int64             `json:"blobs"`
	Bytes       int64             `json:"bytes"`
	Kept        int64             `json:"kept"`
	Shared      int64             `json:"shared"`
	Copied      int64             `json:"copied"`
	CopiedBytes int64             `json:"copied_bytes"`
	Erased      int64             `json:"erased"` // by restore: references that were erased after the backup
	LeftOut     []storage.Finding `json:"left_out"`
	Seconds     float64           `json:"seconds"`
}

func (a *app) backup(ctx context.Context, dest string, opts engine.BackupOptions) error {
	return a.withExisting(ctx, func(store *engine.FileStore) error {
		begun := time.Now()
		show := a.newProgress("backing up", "")
		opts.Progress = func(what engine.BackupStep, done, total int64) { show.backup(engine.RestoreStep(what), done, total) }
		done, err := store.Backup(ctx, dest, opts)
		show.clear()
		return a.tellBackup("backup", dest, &done, time.Since(begun), err)
	})
}

// backup shows how far a backup or restore is.
func (p *progress) backup(what engine.RestoreStep, done, total int64) {
	switch what {
	case engine.RestoreIndex:
		p.step("making the index", "references", 0)
	case engine.RestoreCopy:
		p.step("bringing files", "blobs", 0)
	case engine.RestoreSidecars:
		p.step("writing sidecars", "blobs", 0)
	case engine.RestoreVerify:
		p.step("verifying", "blobs", 0)
	}
	p.set(done, total)
}

// tellBackup prints what was made, unless it was not, and returns the error.
func (a *app) tellBackup(kind, dest string, b *engine.Backup, took time.Duration, err error) error {
	if err != nil && len(b.LeftOut) == 0 {
		return explainBackup(err, kind)
	}
	if a.asJSON {
		record := backupRecord{
			Kind: kind, Directory: dest, At: b.At, References: b.References, Blobs: b.Blobs, Bytes: b.Bytes, Kept: b.Kept,
			Shared: b.Shared, Copied: b.Copied, CopiedBytes: b.CopiedBytes, Erased: b.Erased, LeftOut: orNone(b.LeftOut), Seconds: took.Round(time.Millisecond).Seconds(),
		}
		return errors.Join(a.printJSON(record), err)
	}
	if failed := printLeftOut(a.stdout, b.LeftOut); failed != nil {
		return errors.Join(failed, err)
	}
	_, failed := fmt.Fprintf(a.stdout, "%s of %s, %s (%s) in %s, as of %s: %d kept, %d shared, %d copied (%s)\n",
		kind, count(int(b.References), "reference"), count(int(b.Blobs), "blob"), humanBytes(b.Bytes), took.Round(time.Millisecond),
		b.At.Local().Format(time.DateTime), b.Kept, b.Shared, b.Copied, humanBytes(b.CopiedBytes))
	if failed == nil && b.Erased > 0 {
		_, failed = fmt.Fprintf(a.stdout, "%s that had been erased after the backup did not come back\n", count(int(b.Erased), "reference"))
	}
	if failed != nil {
		return errors.Join(failed, err)
	}
	return explainBackup(err, kind)
}

// explainBackup says what helps.
func explainBackup(err error, kind string) error {
	again := "run the " + kind + " again: it goes on where it stopped"
	switch {
	case errors.Is(err, context.Canceled):
		return hinted(&interruptedError{"interrupted"}, again)
	case errors.Is(err, storage.ErrDiskSpace):
		return hinted(err, "make room there, and "+again)
	case errors.Is(err, storage.ErrCorrupted):
		return hinted(err, "'mediabolt verify' lists all damage; what is left out of a backup may be in an older one")
	}
	return err
}

// printLeftOut names damaged blobs, as verify does.
func printLeftOut(w io.Writer, findings []storage.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "left out  %-14s  %s\n                          %s\n", f.Kind, plain(f.Path), plain(f.Detail)); err != nil {
			return err
		}
	}
	return nil
}

// orNone is a list that is never null in JSON.
func orNone(findings []storage.Finding) []storage.Finding {
	if findings == nil {
		return []storage.Finding{}
	}
	return findings
}
