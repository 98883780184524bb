package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// verify is one run of the command verify.
type verify struct {
	app         *app
	quick, deep bool
	rate        string
	format      string
	options     engine.VerifyOptions

	at              engine.VerifyProgress
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

--deep compares the SHA-256 of the bytes as well as their CRC-32C, --quick reads no
bytes at all. What takes long can be slowed down with --rate, reduced to a sample,
and interrupted: it then says how to go on.

Prints what it found, then a summary. Any damage makes the exit code 12; notices,
such as a file that is not of the store, do not. With --json, findings are JSON
Lines and the last line is the summary, of the kind "summary".`,
		Example: `  mediabolt verify
  mediabolt verify --quick
  mediabolt verify --deep --rate 50MB
  mediabolt verify --deep --sample 10 --seed 7
  mediabolt verify --json | jq -r 'select(.severity == "damage") | .path'`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return v.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&v.quick, "quick", false, "compare sizes but do not read the bytes")
	flags.BoolVar(&v.deep, "deep", false, "compare the SHA-256 too, where it is known")
	flags.StringVar(&v.rate, "rate", "", "read at most `BYTES` per second, such as 50MB")
	flags.Float64Var(&v.options.Sample, "sample", 0, "read the bytes of `PERCENT` of the blobs alone")
	flags.Uint64Var(&v.options.Seed, "seed", 0, "`N` that chooses the sample: the same one again")
	flags.IntVar(&v.options.Workers, "workers", 0, "look at `N` blobs at a time (default: the number of processors, 8 at most)")
	flags.StringVar((*string)(&v.options.Resume), "resume", "", "go on at the `POSITION` that an interrupted verify gave")
	flags.StringVar(&v.format, "format", "", "`FORMAT`: table (default), or json, which is the same as --json")
	if err := cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatTable, formatJSON}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is the one above
	}
	return cmd
}

// checkFlags judges the flags before anything is opened.
func (v *verify) checkFlags(cmd *cobra.Command) (err error) {
	switch {
	case v.quick && v.deep:
		return usagef("--quick and --deep exclude each other")
	case v.quick:
		v.options.Depth = engine.DepthQuick
	case v.deep:
		v.options.Depth = engine.DepthDeep
	}
	if v.rate != "" {
		if v.options.Rate, err = parseSize("rate", strings.TrimSuffix(v.rate, "/s")); err != nil {
			return err
		}
		if v.options.Rate == 0 {
			return usagef("--rate 0: want at least one byte per second")
		}
	}
	changed := cmd.Flags().Changed
	if changed("sample") && !(v.options.Sample > 0 && v.options.Sample <= 100) {
		return usagef("--sample %v: want a percentage, above 0 and up to 100", v.options.Sample)
	}
	if changed("sample") && !changed("seed") && v.options.Resume == "" {
		v.options.Seed = uint64(rand.Uint32())
	}
	if v.options.Workers < 0 {
		return usagef("--workers %d is negative", v.options.Workers)
	}
	return v.app.checkFormat(v.format)
}

// checkFormat judges a --format of table or json.
func (a *app) checkFormat(format string) error {
	switch format {
	case "":
	case formatJSON:
		a.asJSON = true
	case formatTable:
		if a.asJSON {
			return usagef("--json and --format table exclude each other")
		}
	default:
		return usagef("--format %q: want table or json", format)
	}
	return nil
}

// verifySummary is the last line of verify in JSON.
type verifySummary struct {
	Kind    string  `json:"kind"` // "summary"
	OK      bool    `json:"ok"`   // came to the end, without damage
	Blobs   int64   `json:"blobs"`
	Bytes   int64   `json:"bytes"` // read
	Damage  int     `json:"damage"`
	Notices int     `json:"notices"`
	Quick   bool    `json:"quick"`
	Deep    bool    `json:"deep"`
	Sample  float64 `json:"sample"` // percent
	Seed    uint64  `json:"seed"`
	Seconds float64 `json:"seconds"`
	// Position is where --resume goes on, empty unless it was interrupted.
	Position engine.VerifyPosition `json:"position"`
}

func (v *verify) run(cmd *cobra.Command) error {
	if err := v.checkFlags(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	return v.app.withExisting(ctx, func(store *engine.FileStore) error {
		begun := time.Now()
		failed := v.check(ctx, store)
		if errors.Is(failed, storage.ErrInvalidQuery) && v.options.Resume != "" {
			failed = hinted(failed, "give --resume what the interrupted verify printed, whole, or begin anew without it")
		}
		if failed != nil && ctx.Err() == nil {
			return failed
		}
		if failed == nil || v.app.asJSON {
			if err := v.summarise(time.Since(begun), failed == nil); err != nil {
				return err
			}
		}
		if failed != nil {
			return v.interrupted()
		}
		if v.damage > 0 {
			err := fmt.Errorf("%s of damage: %w", count(v.damage, "finding"), storage.ErrCorrupted)
			return hinted(err, "the findings above say what was found and what helps; 'mediabolt repair' says what it could do")
		}
		return nil
	})
}

// interrupted says where the verification ended, and how to go on.
func (v *verify) interrupted() error {
	err := &interruptedError{"interrupted after " + count(int(v.at.Blobs), "blob")}
	if v.at.Position == "" {
		return hinted(err, "it was too early to go on from here: begin anew")
	}
	again := "mediabolt verify --resume " + string(v.at.Position)
	if v.rate != "" {
		again += " --rate " + v.rate
	}
	if v.options.Workers > 0 {
		again += fmt.Sprint(" --workers ", v.options.Workers)
	}
	return hinted(err, "'"+again+"' goes on")
}

func (v *verify) check(ctx context.Context, store *engine.FileStore) error {
	show := v.follow()
	defer show.clear()
	for finding, err := range store.Verify(ctx, v.options) {
		if err != nil {
			return err
		}
		show.clear()
		if err := v.print(&finding); err != nil {
			return err
		}
	}
	return nil
}

// follow shows how a verification goes.
func (v *verify) follow() *progress {
	show := v.app.newProgress("verifying", "blobs")
	var begun *engine.VerifyProgress // what an interrupted one had done
	v.options.Progress = func(at engine.VerifyProgress) {
		if v.at = at; begun == nil {
			begun = &at
		}
		switch {
		case at.Step == engine.VerifyIndex:
			show.step("verifying the index", "blobs", 0)
			show.set(0, 0)
		case at.Step == engine.VerifyTree:
			show.step("looking at the tree", "files", 0)
			const filesOfABlob = 2 // with its sidecar
			show.set(at.Files, max(at.Files, filesOfABlob*at.TotalBlobs))
		case at.TotalBytes > 0:
			show.step("verifying", "", begun.Bytes)
			show.set(at.Bytes, at.TotalBytes)
		default:
			show.step("verifying", "blobs", begun.Blobs)
			show.set(at.Blobs, at.TotalBlobs)
		}
	}
	return show
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

func (v *verify) summarise(took time.Duration, whole bool) error {
	at := &v.at
	if v.app.asJSON {
		s := verifySummary{
			Kind: "summary", OK: v.damage == 0 && whole, Blobs: at.Blobs, Bytes: at.Bytes, Damage: v.damage, Notices: v.notices,
			Quick: at.Depth == engine.DepthQuick, Deep: at.Depth == engine.DepthDeep, Sample: at.Sample, Seed: at.Seed,
			Seconds: took.Round(time.Millisecond).Seconds(),
		}
		if !whole {
			s.Position = at.Position
		}
		return v.app.printJSON(s)
	}
	verdict := "no damage"
	if v.damage > 0 {
		verdict = count(v.damage, "finding") + " of damage"
	}
	if v.notices > 0 {
		verdict += ", " + count(v.notices, "notice")
	}
	how := ", " + humanBytes(at.Bytes) + " read"
	switch {
	case at.Depth == engine.DepthQuick:
		how = ", bytes not read"
	case at.Sample < 100:
		how += fmt.Sprintf(", a sample of %v %% with seed %d", at.Sample, at.Seed)
	}
	_, err := fmt.Fprintf(v.app.stdout, "%s in %s (%s%s)\n", verdict, count(int(v.at.Blobs), "blob"), took.Round(time.Millisecond), how)
	return err
}

// count is a number of things in words.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return humanize.Comma(int64(n)) + " " + noun + "s"
}
