package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// importing is one run of the command import.
type importing struct {
	app          *app
	organization string
	limits       limitFlags
}

func (a *app) importCommand() *cobra.Command {
	i := &importing{app: a}
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Add what is in an archive that 'export' wrote",
		Long: `Add what is in an archive that 'mediabolt export' wrote, from a file or standard
input, to a store; it is made where there is none. References keep their IDs, times
and labels, files go where the organization of this store puts them.

What is there already is left alone, so the same archive can be imported again: after
an interruption that brings the rest, else nothing. An ID that is there with other
content ends the import and is named. Every byte is checked; damaged files are named
and left out, with exit code 12. What was added before an error stays.

--quota, --user-quota, --session-quota and --min-free end an import where it would pass
them; what was imported before stays. They hold for this command alone.`,
		Example: `  mediabolt import media.tar
  ssh host mediabolt export --session s1 --store /srv/media | mediabolt import
  zstdcat u1.tar.zst | mediabolt import --store ~/copy`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{standardInput}
			}
			return i.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVar(&i.organization, "organization", "", "`MODE` of the directories of new files: flat, by-conversation, by-session (default) or by-run")
	i.limits.addTo(cmd)
	if err := cmd.RegisterFlagCompletionFunc("organization", cobra.FixedCompletions(modeNames(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

// sizeOf is how many bytes there are to read, 0 where that is not known.
func sizeOf(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// importRecord is what import prints in JSON.
type importRecord struct {
	References int64             `json:"references"` // added
	Present    int64             `json:"present"`    // there already
	Blobs      int64             `json:"blobs"`      // added
	Bytes      int64             `json:"bytes"`      // of all in the archive
	LeftOut    []storage.Finding `json:"left_out"`
	Seconds    float64           `json:"seconds"`
}

func (i *importing) run(ctx context.Context, name string) error {
	mode := storage.OrganizationMode(i.organization)
	if mode != "" && mode.Validate() != nil {
		return usagef("--organization %q: want one of %s", i.organization, strings.Join(modeNames(), ", "))
	}
	if err := i.limits.check(); err != nil {
		return err
	}
	file, in := i.app.stdin, interruptible(ctx, i.app.stdin)
	if name != standardInput {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return hinted(fmt.Errorf("%s is a directory", name), "an archive is a file; 'mediabolt restore' makes a store of a backup")
		}
		file, in = f, f
	}
	defer func() { _ = in.Close() }() // was only read
	dir, err := i.app.storeDir()
	if err != nil {
		return err
	}
	fresh := !isStore(dir)
	config := engine.FileStoreConfig{
		EnableDeduplication: true, Organization: mode, Quota: i.limits.quota, MinFreeBytes: i.limits.minFree,
	}
	return i.app.withStore(ctx, config, func(store *engine.FileStore) error {
		if fresh {
			i.app.note("made a new store in %s", dir)
		}
		return i.read(ctx, store, in, sizeOf(file))
	})
}

// read imports an archive of so many bytes; 0 where that is not known.
func (i *importing) read(ctx context.Context, store *engine.FileStore, in io.Reader, total int64) error {
	begun := time.Now()
	show := i.app.newProgress("importing", "")
	show.total = total
	done, err := store.Import(ctx, watchedReader{in, show})
	show.clear()
	if errors.Is(err, context.Canceled) {
		msg := "interrupted after " + count(int(done.References), "reference")
		return hinted(&interruptedError{msg}, "what was imported stays; import the same archive again for the rest")
	}
	if errors.Is(err, storage.ErrCorrupted) {
		err = hinted(err, "the archive is at fault, not the store: make it again by 'mediabolt export', or copy it again, and import that")
	}
	if err != nil && done.References+done.Present == 0 && len(done.LeftOut) == 0 {
		return err
	}
	took := time.Since(begun).Round(time.Millisecond)
	if i.app.asJSON {
		record := importRecord{done.References, done.Present, done.Blobs, done.Bytes, orNone(done.LeftOut), took.Seconds()}
		return errors.Join(i.app.printJSON(record), err)
	}
	failed := printLeftOut(i.app.stdout, done.LeftOut)
	if failed == nil {
		_, failed = fmt.Fprintf(i.app.stdout, "imported %s, %s; %d were there already (%s in %s)\n", count(int(done.References), "reference"),
			count(int(done.Blobs), "blob"), done.Present, humanBytes(done.Bytes), took)
	}
	return errors.Join(failed, err)
}
