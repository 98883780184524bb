package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

// adoption is one run of the command adopt.
type adoption struct {
	app          *app
	options      adopt.Options
	format       string
	copy         bool
	organization string
	all          bool

	report adopt.Report
}

func (a *app) adoptCommand() *cobra.Command {
	o := &adoption{app: a}
	cmd := &cobra.Command{
		Use:   "adopt DIR",
		Short: "Move media in from another store or from a folder",
		Long: `Store the media of a directory that was kept in another way until now:

  json       a store whose index is .dedup-index.json, as 'mediabolt index dump' prints
             it; a ref_count of 3 becomes a reference that counts 3
  promptkit  PromptKit's local file store: sessions/, conversations/, runs/, with a
             .meta file beside each file, and .dedup_index.json if it has one
  plain      any folder; --pattern tells which elements of a path are IDs

Every file is hashed on its way in, and left where its hash or size is not what the
old index says. DIR is only read, unless --in-place: then a file is removed once its
copy in the store is durable and was read back. What is odd or left is printed, with
--all every file; then a summary. With --json, files are JSON Lines, all of them, and
the last line is the summary, of the kind "summary".

Run it again after an interruption, or when something was mended or added: nothing is
added twice. 'mediabolt resolve' finds what a path of the old store has become, also
when DIR is gone. Media that may have been left makes the exit code 3.

A pattern has to match the whole path below DIR. {session}, {conversation}, {run} and
{user} are IDs, * is any text of one element, ** any number of elements.`,
		Example: `  mediabolt adopt --dry-run ~/promptkit/media
  mediabolt adopt ~/promptkit/media
  mediabolt adopt --pattern '{session}/{conversation}/**' ~/pictures
  mediabolt adopt --in-place --base /var/lib/media /mnt/old/media
  mediabolt adopt --json ~/pictures | jq -r 'select(.state == "left") | .path'`,
		Args: exactly(1, "DIR"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.options.Dir = args[0]
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.format, "from", string(adopt.Auto), "`FORMAT` of DIR: auto finds out, json, promptkit or plain")
	flags.BoolVar(&o.copy, "copy", false, "only read DIR (the default)")
	flags.BoolVar(&o.options.InPlace, "in-place", false, "remove from DIR what is safely in the store")
	flags.StringVar(&o.options.Pattern, "pattern", "", "which elements of a path are IDs, a `PATTERN` such as '{session}/{conversation}/*'")
	flags.StringVar(&o.options.Base, "base", "", "`PATH` that DIR had in the old store's configuration, if it is another now")
	flags.BoolVar(&o.options.DryRun, "dry-run", false, "check every file and store nothing")
	flags.BoolVar(&o.all, "all", false, "print every file, not only what is odd")
	flags.StringVar(&o.organization, "organization", "", "`MODE` of the directories of new files: flat, by-conversation, by-session (default) or by-run")
	var formats []string
	for _, f := range adopt.Formats() {
		formats = append(formats, string(f))
	}
	for name, choices := range map[string][]string{"from": formats, "organization": modeNames()} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flags are those above
		}
	}
	return cmd
}

// adoptSummary is the last line of adopt in JSON.
type adoptSummary struct {
	Kind   string `json:"kind"` // "summary"
	DryRun bool   `json:"dry_run"`
	adopt.Report
	Seconds float64 `json:"seconds"`
}

func (o *adoption) run(ctx context.Context) error {
	o.options.Format = adopt.Format(o.format)
	switch {
	case o.copy && o.options.InPlace:
		return usagef("--copy and --in-place exclude each other")
	case o.options.DryRun && o.options.InPlace:
		return usagef("--dry-run and --in-place exclude each other")
	}
	if o.organization != "" {
		if err := storage.OrganizationMode(o.organization).Validate(); err != nil {
			return usagef("--organization %q: want one of %s", o.organization, strings.Join(modeNames(), ", "))
		}
	}
	dir, err := o.app.storeDir()
	if err != nil {
		return err
	}
	if err := adopt.CheckApart(o.options.Dir, dir); err != nil {
		return err
	}
	if err := o.options.Check(); err != nil {
		return err
	}
	fresh := !isStore(dir)
	if fresh && o.options.DryRun {
		return o.adopt(ctx, nil)
	}
	config := engine.FileStoreConfig{
		EnableDeduplication: true, Organization: storage.OrganizationMode(o.organization), NoCreate: o.options.DryRun,
	}
	return o.app.withStore(ctx, config, func(store *engine.FileStore) error {
		if fresh {
			o.app.note("made a new store in %s", dir)
		}
		return o.adopt(ctx, store)
	})
}

func (o *adoption) adopt(ctx context.Context, store *engine.FileStore) error {
	begun := time.Now()
	show := o.app.newProgress("adopting", "")
	o.options.Progress = func(p adopt.Progress) { show.set(p.Bytes, p.TotalBytes) }
	defer show.clear()
	for item, err := range adopt.Adopt(ctx, store, o.options) {
		switch {
		case err != nil && ctx.Err() != nil:
			msg := fmt.Sprintf("interrupted after %s taken", count(o.report.Taken, "file"))
			return hinted(&interruptedError{msg}, "what was taken is safe; the same command goes on")
		case errors.Is(err, storage.ErrCorrupted):
			return hinted(err, "")
		case err != nil:
			return err
		}
		o.report.Add(&item)
		if err := o.print(&item, show); err != nil {
			return err
		}
	}
	show.clear()
	if err := o.summarise(time.Since(begun)); err != nil {
		return err
	}
	if o.report.Trouble > 0 {
		msg := fmt.Sprintf("%s left that may be media", count(o.report.Trouble, "file"))
		return hinted(&batchError{msg, outcome{code: "some_failed", exit: exitSome}}, "")
	}
	return nil
}

func (o *adoption) print(i *adopt.Item, show *progress) error {
	if o.app.asJSON {
		show.clear()
		return o.app.printJSON(i)
	}
	if i.Odd == "" && !o.all {
		return nil
	}
	show.clear()
	line := fmt.Sprintf("%-5s  %s", i.State, plain(i.Path))
	if i.Reference != "" {
		line += " -> " + i.Reference
	}
	if i.Odd != "" {
		line += fmt.Sprintf("\n       %s: %s", i.Odd, plain(i.Detail))
	}
	_, err := fmt.Fprintln(o.app.stdout, line)
	return err
}

func (o *adoption) summarise(took time.Duration) error {
	r := &o.report
	if o.app.asJSON {
		return o.app.printJSON(adoptSummary{"summary", o.options.DryRun, *r, took.Round(time.Millisecond).Seconds()})
	}
	verb := "took"
	if o.options.DryRun {
		verb = "would take"
	}
	line := fmt.Sprintf("%s %s (%s)", verb, count(r.Taken, "file"), humanBytes(r.Bytes))
	for _, part := range [...]struct {
		n    int
		text string
	}{{r.Known, "taken before"}, {r.Removed, "removed from the source"}, {r.Odd, "odd"}, {r.Left, "left"}} {
		if part.n > 0 {
			line += fmt.Sprintf(", %s %s", humanize.Comma(int64(part.n)), part.text)
		}
	}
	_, err := fmt.Fprintf(o.app.stdout, "%s in %s\n", line, took.Round(time.Millisecond))
	return err
}
