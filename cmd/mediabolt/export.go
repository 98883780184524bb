package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// export is one run of the command export.
type export struct {
	ls
	output string
	force  bool
}

func (a *app) exportCommand() *cobra.Command {
	e := &export{ls: ls{listing: listing{app: a}}}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write references and their bytes as a portable archive",
		Long: `Write everything, or what the filters of 'mediabolt ls' leave, as a tar archive to
standard output or a file. 'mediabolt import' reads it on any machine; tar unpacks it
as a tree of files, each with a .meta file of JSON Lines beside it.

Every file is checked as it is read. Damaged ones are named and left out, with exit
code 12; the archive is whole then all the same. One that was cut short is noticed by
the import.`,
		Example: `  mediabolt export -o media.tar
  mediabolt export --session s1 | ssh host mediabolt import --store /srv/media
  mediabolt export --user u1 | zstd > u1.tar.zst`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return e.run(cmd.Context()) },
	}
	e.addFilters(cmd)
	cmd.Flags().StringVarP(&e.output, "output", "o", "", "`FILE` to write; standard output without")
	cmd.Flags().BoolVarP(&e.force, "force", "f", false, "overwrite a file that exists")
	return cmd
}

// exportRecord is what export prints in JSON.
type exportRecord struct {
	References int64             `json:"references"`
	Blobs      int64             `json:"blobs"`
	Bytes      int64             `json:"bytes"`
	LeftOut    []storage.Finding `json:"left_out"`
	Seconds    float64           `json:"seconds"`
}

func (e *export) run(ctx context.Context) error {
	if err := e.checkFilters(); err != nil {
		return err
	}
	if e.output == "" && term.IsTerminal(int(e.app.stdout.Fd())) {
		return usagef("standard output is a terminal: say -o FILE, or pipe the archive somewhere")
	}
	return e.app.withExisting(ctx, func(store *engine.FileStore) error {
		begun := time.Now()
		if e.output == "" {
			done, err := e.write(ctx, store, e.app.stdout)
			return e.tell(e.app.stderr, &done, time.Since(begun), err)
		}
		var done engine.Exported
		var whole error // of an archive that lacks something
		err := saveFile(e.output, e.force, func(f *os.File) (err error) {
			if done, err = e.write(ctx, store, f); len(done.LeftOut) > 0 && errors.Is(err, storage.ErrCorrupted) {
				whole, err = err, nil
			}
			return err
		})
		if err == nil {
			err = whole
		}
		return e.tell(e.app.stdout, &done, time.Since(begun), err)
	})
}

// write writes the archive.
func (e *export) write(ctx context.Context, store *engine.FileStore, to io.Writer) (engine.Exported, error) {
	show := e.app.newProgress("exporting", "references")
	defer show.clear()
	// An archive has many small pieces.
	out := bufio.NewWriterSize(interruptibleWriter{ctx, to}, 256<<10)
	done, err := store.Export(ctx, out, e.query, show.set)
	if err == nil || errors.Is(err, storage.ErrCorrupted) { // a whole archive
		err = errors.Join(err, out.Flush())
	}
	return done, err
}

// interrupted says what there is of an archive that was not finished.
func (e *export) interrupted(done *engine.Exported) error {
	left := "no file was written; run it again"
	if e.output == "" {
		left = "what was written is no whole archive, which an import notices; run it again"
	}
	return hinted(&interruptedError{"interrupted after " + count(int(done.References), "reference")}, left)
}

// tell prints what was exported, unless it was not, and returns the error.
func (e *export) tell(w io.Writer, done *engine.Exported, took time.Duration, err error) error {
	if errors.Is(err, context.Canceled) {
		return e.interrupted(done)
	}
	if err != nil && len(done.LeftOut) == 0 {
		return err
	}
	if e.app.asJSON {
		return errors.Join(writeJSON(w, exportRecord{
			done.References, done.Blobs, done.Bytes, orNone(done.LeftOut), took.Round(time.Millisecond).Seconds(),
		}), err)
	}
	if failed := printLeftOut(w, done.LeftOut); failed != nil {
		return errors.Join(failed, err)
	}
	_, failed := fmt.Fprintf(w, "exported %s, %s (%s) in %s\n", count(int(done.References), "reference"),
		count(int(done.Blobs), "blob"), humanBytes(done.Bytes), took.Round(time.Millisecond))
	return errors.Join(failed, err)
}
