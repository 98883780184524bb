package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// du is one run of the command du.
type du struct {
	app    *app
	by     string
	order  string
	format string
}

// usageOrders are the orders of du: largest first, except by name.
var usageOrders = map[string]func(a, b engine.Usage) int{
	"size":       func(a, b engine.Usage) int { return cmp.Compare(b.PhysicalBytes(), a.PhysicalBytes()) },
	"exclusive":  func(a, b engine.Usage) int { return cmp.Compare(b.ExclusiveBytes, a.ExclusiveBytes) },
	"logical":    func(a, b engine.Usage) int { return cmp.Compare(b.LogicalBytes, a.LogicalBytes) },
	"references": func(a, b engine.Usage) int { return cmp.Compare(b.References, a.References) },
	"name":       func(a, b engine.Usage) int { return cmp.Compare(a.Group, b.Group) },
}

// usageOrderNames are the names of the orders, the default first.
var usageOrderNames = []string{"size", "exclusive", "logical", "references", "name"}

func (a *app) duCommand() *cobra.Command {
	d := &du{app: a}
	cmd := &cobra.Command{
		Use:   "du --by session|conversation|run|user|type [ID]",
		Short: "Show who takes how much room",
		Long: `Show how much each session, conversation, run, user or type of media takes, or one
of them: its references, the sum of their sizes (logical), the bytes that only it
refers to (exclusive), which deleting it would free, and those that others refer to
as well (shared). What has no such ID is shown as -, and an ID "" asks for it.

The table ends with the total, where bytes that several share count once. The
numbers come from the index; no file is looked at. One session, conversation, run or
user costs what it has, all of them cost what the store has.`,
		Example: `  mediabolt du --by user
  mediabolt du --by session s1
  mediabolt du --by user --sort exclusive --format csv > usage.csv`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return d.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&d.by, "by", "", "`KIND` of group: session, conversation, run, user or type")
	flags.StringVar(&d.order, "sort", usageOrderNames[0], "`ORDER`: size (on disk), exclusive, logical or references, largest first, or name")
	flags.StringVar(&d.format, "format", "", "`FORMAT`: table (default), json, which is the same as --json, or csv")
	for flag, choices := range map[string][]string{
		"by": usageKindNames(), "sort": usageOrderNames, "format": {formatTable, formatJSON, formatCSV},
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flags are those above
		}
	}
	return cmd
}

func usageKindNames() []string {
	var names []string
	for _, kind := range engine.UsageKinds() {
		names = append(names, string(kind))
	}
	return names
}

func (d *du) run(ctx context.Context, args []string) error {
	if err := d.check(); err != nil {
		return err
	}
	by := engine.UsageKind(d.by)
	return d.app.withExisting(ctx, func(store *engine.FileStore) error {
		var report engine.UsageReport
		var err error
		if len(args) > 0 {
			report.Groups = make([]engine.Usage, 1)
			report.Groups[0], err = store.UsageOf(ctx, by, args[0])
			if err == nil && report.Groups[0].References == 0 {
				err = &itemError{fmt.Errorf("%w: nothing is stored for %s %q", storage.ErrNotFound, d.by, args[0]), args[0]}
			}
		} else {
			report, err = store.Usage(ctx, by)
		}
		if err != nil {
			return err
		}
		slices.SortStableFunc(report.Groups, usageOrders[d.order])
		return d.print(&report, len(args) == 0)
	})
}

// check judges the flags before anything is opened.
func (d *du) check() (err error) {
	if d.by == "" {
		return usagef("--by is missing: one of %s", strings.Join(usageKindNames(), ", "))
	}
	if !slices.Contains(usageKindNames(), d.by) {
		return usagef("--by %q: want one of %s", d.by, strings.Join(usageKindNames(), ", "))
	}
	if usageOrders[d.order] == nil {
		return usagef("--sort %q: want one of %s", d.order, strings.Join(usageOrderNames, ", "))
	}
	d.format, err = d.app.chooseFormat(d.format)
	return err
}

func (d *du) print(r *engine.UsageReport, total bool) error {
	out := bufio.NewWriter(d.app.stdout)
	var err error
	switch d.format {
	case formatJSON:
		err = d.printJSON(out, r)
	case formatCSV:
		err = d.printCSV(out, r)
	default:
		err = d.printTable(out, r, total)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// usageRecord is a group in JSON. Sizes are in bytes.
type usageRecord struct {
	By             string `json:"by"`
	Group          string `json:"group"` // the ID or type; empty: what has none
	References     int64  `json:"references"`
	LogicalBytes   int64  `json:"logical_bytes"`
	ExclusiveBytes int64  `json:"exclusive_bytes"` // of blobs that only this group refers to
	SharedBytes    int64  `json:"shared_bytes"`    // of blobs that others refer to as well
}

func (d *du) printJSON(out io.Writer, r *engine.UsageReport) error {
	for _, u := range r.Groups {
		if err := writeJSON(out, usageRecord{d.by, u.Group, u.References, u.LogicalBytes, u.ExclusiveBytes, u.SharedBytes}); err != nil {
			return err
		}
	}
	return nil
}

// printCSV prints RFC 4180, names in the first record: the fields of usageRecord.
func (d *du) printCSV(out io.Writer, r *engine.UsageReport) error {
	w := csv.NewWriter(out)
	if err := w.Write([]string{"by", "group", "references", "logical_bytes", "exclusive_bytes", "shared_bytes"}); err != nil {
		return err
	}
	for _, u := range r.Groups {
		record := []string{d.by, u.Group}
		for _, n := range [...]int64{u.References, u.LogicalBytes, u.ExclusiveBytes, u.SharedBytes} {
			record = append(record, strconv.FormatInt(n, 10))
		}
		if err := w.Write(record); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func (d *du) printTable(out io.Writer, r *engine.UsageReport, total bool) error {
	t := newTable(out)
	row := func(name string, u *engine.Usage) error {
		return t.row(fmt.Sprintf("%10s", humanize.Comma(u.References)), size(u.LogicalBytes), fmt.Sprintf("%9s", humanBytes(u.ExclusiveBytes)), size(u.SharedBytes), name)
	}
	if err := t.row("REFERENCES", " LOGICAL", "EXCLUSIVE", "  SHARED", strings.ToUpper(d.by)); err != nil {
		return err
	}
	for i := range r.Groups {
		if err := row(orDash(clip(r.Groups[i].Group, 60)), &r.Groups[i]); err != nil {
			return err
		}
	}
	if total {
		if err := row("(total)", &r.Total); err != nil {
			return err
		}
	}
	return t.end()
}
