package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/certify"
	"github.com/mediabolt/mediabolt/storage"
)

// errViolation marks a certification that found a broken promise.
var errViolation = errors.New("promise broken")

// victimCommand is the name of the command that is killed.
const victimCommand = "certify-victim"

// certification is one run of the command certify.
type certification struct {
	app     *app
	options certify.Options
}

func (a *app) certifyCommand() *cobra.Command {
	c := &certification{app: a}
	cmd := &cobra.Command{
		Use:   "certify [DIR]",
		Short: "Prove on your own disk that nothing is lost",
		Long: `Make a scratch folder in DIR (default: the working directory), and in it measure the
disk and prove that stores keep their promises there:

  the disk      how long durable writes and syncs take, whether syncs are so fast
                that they cannot have reached a disk, and what about the filesystem
                weakens the promises
  consistency   64 goroutines store, delete, hold, erase and read, within quotas; the
                store is compared with what was acknowledged, closed, opened and
                compared again
  kills         64 goroutines in a process of its own, which is killed, paused or
                asked to close at random moments; what it has acknowledged must be
                there, byte for byte, what was deleted must not, and what was under
                way must be wholly there or not at all

With --power-cut (Linux, as root) also

  power cuts    a real ext4 on a disk that is served by FUSE and records every write
                and flush; the power is cut after one write after another, what such
                a disk may then hold is mounted, and the store there must have all

Nothing outside the scratch folder is touched, and it is removed at the end, also
after Ctrl-C; the evidence of a broken promise is kept. Needs 1 GiB for a while. A
broken promise makes the exit code 12. Suspicious syncs do not: no program can see
whether a disk lies, and the report says what its speed suggests.

With --json, prints one object.`,
		Example: `  mediabolt certify /data
  mediabolt certify --duration 10m --json /data | jq .kills
  sudo mediabolt certify --power-cut --duration 5m /data`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.options.Dir = "."
			if len(args) > 0 {
				c.options.Dir = args[0]
			}
			return c.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&c.options.Duration, "duration", certify.DefaultDuration, "about how long to take, a `DURATION`; each part does at least one round")
	flags.Uint64Var(&c.options.Seed, "seed", 0, "repeat the random choices, but not the moments, of the report with this `NUMBER`; 0 makes fresh ones")
	flags.BoolVar(&c.options.PowerCut, "power-cut", false, "also cut the power of a disk with ext4 that is made for that (Linux, as root)")
	flags.BoolVar(&c.options.Keep, "keep", false, "keep the scratch folder in any case")
	return cmd
}

// victim is the hidden command that certify starts, and kills.
func (a *app) victimCommand() *cobra.Command {
	return &cobra.Command{
		Use: victimCommand, Short: "Work on a store until killed", Hidden: true, Args: none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return certify.Victim(cmd.Context(), a.stdin, a.stdout)
		},
	}
}

// newVictim is this program again, as a victim. It has the name that this one
// was started by, since a program may go by that.
func newVictim(self string) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.Command(self, victimCommand)
		cmd.Args[0] = os.Args[0]
		return cmd
	}
}

func (c *certification) run(ctx context.Context) error {
	if c.options.Duration <= 0 {
		return usagef("--duration %s: want more than nothing", c.options.Duration)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	c.options.Victim = newVictim(self)
	show := c.app.newProgress("certifying", "seconds")
	total := int64(math.Ceil(c.options.Duration.Seconds()))
	c.options.Progress = func(doing string, done float64) {
		show.describe(doing)
		show.set(int64(done*float64(total)), total)
	}
	report, err := certify.Run(ctx, c.options)
	show.clear()
	switch {
	case errors.Is(err, certify.ErrNoPowerCut):
		return hinted(err, "run as root on Linux with FUSE (modprobe fuse), loop devices (modprobe loop) and mkfs.ext4 (package e2fsprogs), or leave out --power-cut")
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, storage.ErrInvalidConfig):
		return hinted(err, "name a directory that is there, on the disk that is to be certified; a scratch folder is made in it")
	case err != nil:
		return err
	}
	if err := c.print(report); err != nil {
		return err
	}
	if report.OK {
		return nil
	}
	err = fmt.Errorf("%w: %s", errViolation, count(len(report.Violations), "violation"))
	return hinted(err, "the evidence is kept in "+report.Kept+"; please report it")
}

func (c *certification) print(r *certify.Report) error {
	if c.app.asJSON {
		return c.app.printJSON(r)
	}
	p := &page{w: c.app.stdout}
	p.line("%s, certified in %s with seed %d", r.Dir, (time.Duration(r.Seconds * float64(time.Second))).Round(100*time.Millisecond), r.Seed)
	printDisk(p, &r.Disk)
	p.line("")
	p.line("Consistency: 64 goroutines on one store, %s", count(r.Consistency.Rounds, "round"))
	printCount(p, &r.Consistency.Count, r.Consistency.References)
	p.item("verified", "%s beside the work", count(r.Consistency.Verified, "time"))
	if cut := r.PowerCut; cut != nil {
		p.line("")
		p.line("Power cuts: a disk with %s", cut.Filesystem)
		p.item("cut", "after %s of %s writes and flushes", humanize.Comma(int64(cut.CutEvents)), humanize.Comma(int64(cut.Events)))
		p.item("judged", "%s, and %s of a recovery", count(cut.Cuts, "image"), humanize.Comma(int64(cut.RecoveryCuts)))
	}
	p.line("")
	p.line("Kills: 64 goroutines in a process, %s on one store", count(r.Kills.Rounds, "round"))
	printCount(p, &r.Kills.Count, r.Kills.References)
	p.item("ended by", "%s, %s, %s", count(r.Kills.Kills, "kill"), count(r.Kills.Pauses, "pause"), count(r.Kills.Closes, "close"))
	p.item("in flight", "%s at the kills, each wholly there or not at all", count(int(r.Kills.InFlight), "call"))
	p.item("opening", "%.0f ms at most, after a kill", r.Kills.SlowOpen)
	p.line("")
	printVerdict(p, r)
	return p.err
}

func printDisk(p *page, d *certify.Disk) {
	p.line("")
	p.line("The disk")
	if d.Filesystem != "" {
		p.item("filesystem", "%s on %s at %s (%s)", d.Filesystem, d.Device, d.MountPoint, strings.Join(d.Options, ", "))
	}
	for _, l := range []struct {
		name string
		certify.Latency
	}{{"durable write", d.DurableWrite}, {"sync, in place", d.Overwrite}, {"sync, growing", d.Append}} {
		p.item(l.name, "p50 %s  p95 %s  p99 %s  (%s)", micros(l.P50), micros(l.P95), micros(l.P99), count(l.Samples, "sample"))
	}
	p.item("syncs", "%s: %s", strings.ReplaceAll(string(d.Honesty), "_", " "), d.Why)
	for _, concern := range d.Concerns {
		p.item("take note", "%s", concern)
	}
}

func printCount(p *page, c *certify.Count, references int) {
	p.item("calls", "%s stores and %s deletes acknowledged, %s reads compared, %s refused",
		humanize.Comma(c.Stored), humanize.Comma(c.Deleted), humanize.Comma(c.Read), humanize.Comma(c.Refused))
	p.item("lifecycle", "%s and %s acknowledged; %s refused for a hold, %s for a limit",
		count(int(c.Held), "hold"), count(int(c.Erased), "erased reference"), count(int(c.Spared), "delete"), count(int(c.Limited), "store"))
	p.item("in the end", "%s", count(references, "reference"))
}

func printVerdict(p *page, r *certify.Report) {
	if r.OK {
		p.line("Verdict: every promise was kept.")
	} else {
		p.line("Verdict: BROKEN")
		for _, v := range r.Violations {
			p.item(string(v.Kind), "%s, round %d: %s", v.Part, v.Round, v.Detail)
		}
	}
	if r.Kept != "" {
		p.line("Kept: %s", r.Kept)
	}
}

// micros is a latency for people, seven characters wide.
func micros(us float64) string {
	switch {
	case us < 10:
		return fmt.Sprintf("%4.1f µs", us)
	case us < 1000:
		return fmt.Sprintf("%4.0f µs", us)
	}
	return fmt.Sprintf("%4.1f ms", us/1000)
}

// page is text in lines and in items of two columns. The first error stays.
type page struct {
	w   io.Writer
	err error
}

func (p *page) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%s\n", plain(fmt.Sprintf(format, args...)))
	}
}

// Columns of an item, and where its text ends.
const (
	itemName  = 16
	itemWidth = 72
)

// item is a name with a text that goes on below itself.
func (p *page) item(name, format string, args ...any) {
	line := ""
	for _, word := range strings.SplitAfter(fmt.Sprintf(format, args...), " ") {
		if line != "" && len(line)+len(word) > itemWidth {
			p.line("  %-*s%s", itemName, name, strings.TrimRight(line, " "))
			name, line = "", ""
		}
		line += word
	}
	p.line("  %-*s%s", itemName, name, strings.TrimRight(line, " "))
}
