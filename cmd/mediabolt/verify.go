package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// verify is one run of the command verify.
type verify struct {
	app   *app
	quick bool

	blobs           int64 // looked at
	damage, notices int
}

func (a *app) verifyCommand() *cobra.Command {
	v := &verify{app: a}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that everything is there and undamaged",
		Long: `Check the index against itself, every row against its file (size and checksum) and
sidecar, every refcount against the rows, and look for files that nothing names and
for leftovers. Nothing is changed, except that opening the store finishes what a
crash interrupted.

Prints what it found, then a summary. Any damage makes the exit code 12; notices,
such as a file that is not of the store, do not. With --json, findings are JSON
Lines and the last line is the summary, of the kind "summary".`,
		Example: `  mediabolt verify
  mediabolt verify --quick
  mediabolt verify --json | jq -r 'select(.severity == "damage") | .path'`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return v.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&v.quick, "quick", false, "compare sizes but do not read the bytes")
	return cmd
}

// verifySummary is the last line of verify in JSON.
type verifySummary struct {
	Kind    string  `json:"kind"` // "summary"
	OK      bool    `json:"ok"`
	Blobs   int64   `json:"blobs"` // looked at
	Damage  int     `json:"damage"`
	Notices int     `json:"notices"`
	Quick   bool    `json:"quick"`
	Seconds float64 `json:"seconds"`
}

func (v *verify) run(ctx context.Context) error {
	return v.app.withExisting(ctx, func(store *engine.FileStore) error {
		begun := time.Now()
		if err := v.check(ctx, store); err != nil {
			return err
		}
		if err := v.summarise(time.Since(begun)); err != nil {
			return err
		}
		if v.damage > 0 {
			err := fmt.Errorf("%s of damage: %w", count(v.damage, "finding"), storage.ErrCorrupted)
			return hinted(err, "the findings above say what was found and what helps")
		}
		return nil
	})
}

func (v *verify) check(ctx context.Context, store *engine.FileStore) error {
	show := v.app.newProgress("verifying", -1, false)
	defer show.clear()
	options := engine.VerifyOptions{SkipContent: v.quick, Progress: func(done, total int64) {
		v.blobs = done
		show.set(done, total)
	}}
	for finding, err := range store.Verify(ctx, options) {
		show.clear()
		switch {
		case ctx.Err() != nil:
			return &interruptedError{"interrupted after " + count(int(v.blobs), "blob")}
		case err != nil:
			return err
		}
		if err := v.print(&finding); err != nil {
			return err
		}
	}
	return nil
}

func (v *verify) print(f *storage.Finding) error {
	if f.Severity == storage.SeverityNotice {
		v.notices++
	} else {
		v.damage++
	}
	return v.app.printFinding(f)
}

// printFinding prints one finding, on a line and its detail below.
func (a *app) printFinding(f *storage.Finding) error {
	if a.asJSON {
		return a.printJSON(f)
	}
	about := f.Path
	for _, other := range []string{f.Ref, f.Blob} {
		if about == "" {
			about = other
		}
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %-14s  %s\n                        %s\n", f.Severity, f.Kind, plain(orDash(about)), plain(f.Detail))
	return err
}

func (v *verify) summarise(took time.Duration) error {
	if v.app.asJSON {
		return v.app.printJSON(verifySummary{
			Kind: "summary", OK: v.damage == 0, Blobs: v.blobs, Damage: v.damage, Notices: v.notices,
			Quick: v.quick, Seconds: took.Round(time.Millisecond).Seconds(),
		})
	}
	verdict := "no damage"
	if v.damage > 0 {
		verdict = count(v.damage, "finding") + " of damage"
	}
	if v.notices > 0 {
		verdict += ", " + count(v.notices, "notice")
	}
	how := ""
	if v.quick {
		how = ", bytes not read"
	}
	_, err := fmt.Fprintf(v.app.stdout, "%s in %s (%s%s)\n", verdict, count(int(v.blobs), "blob"), took.Round(time.Millisecond), how)
	return err
}

// count is a number of things in words.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return humanize.Comma(int64(n)) + " " + noun + "s"
}
