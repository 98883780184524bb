// Package report makes a page and plots of measured cells.
package report

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
	"github.com/mediabolt/mediabolt/bench/plan"
	"github.com/mediabolt/mediabolt/bench/strategy"
)

// Write writes index.md and the plots to dir, and results.txt, the same figures
// as Go benchmarks, for benchstat.
func Write(lines []driver.Line, dir string) error {
	if len(lines) == 0 {
		return fmt.Errorf("there are no results")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	plots, err := drawAll(lines, dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.txt"), benchmarks(lines), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.md"), page(lines, plots), 0o644)
}

func page(lines []driver.Line, plots []plotted) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Measured: profile %s\n\n", lines[0].Profile)
	origins(&b, lines)
	fmt.Fprintf(&b, "\nWrites are durable, except for `json-nosync`. Every cell ran in a process of its own, with GOGC=1600 (100 for upkeep), in turn: "+
		"what else the machine did met some and not others, so small differences mean nothing. Latencies are those of a closed loop.\n")
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%s](%s)\n", p.title, p.file)
	}
	promises(&b, lines)
	ratios(&b, lines)
	ahead(&b, lines)
	rivals(&b, lines)
	openings(&b, lines)
	upkeep(&b, lines)
	questions(&b, lines)
	cells(&b, lines)
	return b.Bytes()
}

// origins says of what code and machine the lines are, and how many of each if
// they are mixed.
func origins(b *bytes.Buffer, lines []driver.Line) {
	all := driver.Origins(lines)
	if len(all) == 1 {
		fmt.Fprintf(b, "Revision %s. %s.\n", all[0].Revision, all[0].Machine)
		return
	}
	fmt.Fprintf(b, "**Mixed**: these results are not all of one revision and machine, so cells cannot be compared with certainty.\n\n")
	for _, o := range all {
		n := 0
		for i := range lines {
			if lines[i].Origin == o {
				n++
			}
		}
		fmt.Fprintf(b, "- %d cells: %s\n", n, o)
	}
}

// promises says what each strategy that was measured loses.
func promises(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## What the indexes keep\n\n| index | loses of what was acknowledged |\n|---|---|\n")
	for _, s := range strategy.All() {
		if slices.ContainsFunc(lines, func(l driver.Line) bool { return l.Cell.Index == s.Name }) {
			fmt.Fprintf(b, "| %s | %s |\n", s.Name, cmp.Or(s.Loses, "nothing"))
		}
	}
}

// floors names the floor that an operation of the engine is held to.
var floors = map[string]string{
	cell.Store: cell.Create, cell.StoreText: cell.Create, cell.Retrieve: cell.ReadBase64, cell.Open: cell.ReadFile,
}

func ratios(b *bytes.Buffer, lines []driver.Line) {
	if !slices.ContainsFunc(lines, func(l driver.Line) bool { return l.Cell.Scope == cell.Floor }) {
		return
	}
	fmt.Fprint(b, "\n## To the floors\n\n`create` is create, write, fdatasync and rename without an index; `sha256` hashes on all cores; "+
		"`readfile` and `readfile-base64` read with os.ReadFile, and encode with the standard library. Above 1 the store is faster than its floor.\n\n"+
		"| store | per second | floor | per second | ratio |\n|---|--:|---|--:|--:|\n")
	for i := range lines {
		l := &lines[i]
		if l.Cell.Scope != cell.Engine || l.Cell.Refs > 0 {
			continue
		}
		want := floors[l.Cell.Op]
		if l.Cell.Dup == 100 {
			want = cell.SHA256
		} else if l.Cell.Dup > 0 {
			continue
		}
		for k := range lines {
			f := &lines[k]
			if f.Cell.Scope == cell.Floor && f.Cell.Op == want && f.Cell.Size == l.Cell.Size && f.Cell.Writers == l.Cell.Writers && f.Cell.Series == l.Cell.Series {
				fmt.Fprintf(b, "| %s, %s | %.0f | %s | %.0f | %.2f |\n", words(&l.Cell), l.Cell.Index, l.PerSecond, want, f.PerSecond, l.PerSecond/f.PerSecond)
			}
		}
	}
}

// ours is the index that the others are compared with.
const ours = "boltindex"

// versus calls fn with every pair of cells that differ in the index alone, ours
// and another.
func versus(lines []driver.Line, fn func(ours, other *driver.Line)) {
	for i := range lines {
		if lines[i].Cell.Index != ours || lines[i].Cell.Op == cell.Opening {
			continue
		}
		for k := range lines {
			same := lines[k].Cell
			same.Index = ours
			if lines[k].Cell.Index != ours && same == lines[i].Cell {
				fn(&lines[i], &lines[k])
			}
		}
	}
}

// alone says whether no cell was measured with another index too.
func alone(lines []driver.Line) bool {
	pairs := 0
	versus(lines, func(*driver.Line, *driver.Line) { pairs++ })
	return pairs == 0
}

// busy is with how many writers the indexes are said to be ahead or behind.
const busy = 64

// visibly is from which ratio one index is said to be ahead: a histogram tells
// latencies apart by one per cent.
const visibly = 1.01

// ahead says plainly where another index does better than ours.
func ahead(b *bytes.Buffer, lines []driver.Line) {
	if alone(lines) {
		return
	}
	fmt.Fprintf(b, "\n## Where another index is ahead of %s, %d at the same time\n\n", ours, busy)
	pairs, said := 0, 0
	versus(lines, func(o, r *driver.Line) {
		if o.Cell.Writers != busy {
			return
		}
		pairs++
		if r.PerSecond > visibly*o.PerSecond {
			fmt.Fprintf(b, "- `%s` has %.2f times the throughput of %s: %s, %s.\n", r.Cell.Index, r.PerSecond/o.PerSecond, ours, scopes[o.Cell.Scope], words(&o.Cell))
			said++
		}
		if visibly*float64(r.Latency.P99) < float64(o.Latency.P99) {
			fmt.Fprintf(b, "- `%s` has %.2g times the p99 of %s: %s, %s.\n", r.Cell.Index, float64(r.Latency.P99)/float64(o.Latency.P99), ours, scopes[o.Cell.Scope], words(&o.Cell))
			said++
		}
	})
	switch {
	case pairs == 0:
		fmt.Fprintf(b, "No other index was measured with %d.\n", busy)
	case said == 0:
		fmt.Fprintf(b, "Nowhere, of %d comparisons.\n", pairs)
	}
}

var scopes = map[string]string{cell.Index: "an index alone", cell.Engine: "a whole store"}

// rivals sets every index beside ours, in cells that are otherwise the same.
func rivals(b *bytes.Buffer, lines []driver.Line) {
	if alone(lines) {
		return
	}
	fmt.Fprintf(b, "\n## To the other indexes\n\n| what | of | %s, per second | other | per second | ratio |\n|---|---|--:|---|--:|--:|\n", ours)
	versus(lines, func(o, r *driver.Line) {
		fmt.Fprintf(b, "| %s | %s | %.0f | %s | %.0f | %.2f |\n", words(&o.Cell), scopes[o.Cell.Scope], o.PerSecond, r.Cell.Index, r.PerSecond, o.PerSecond/r.PerSecond)
	})
}

// words is a cell for people, without its index.
func words(c *cell.Cell) string {
	s := fmt.Sprintf("%s %s, %d at once", c.Op, bytesOf(c.Size), c.Writers)
	if c.Writers == 1 {
		s = fmt.Sprintf("%s %s, 1 at a time", c.Op, bytesOf(c.Size))
	}
	if c.Dup > 0 {
		s += fmt.Sprintf(", %d %% there already", c.Dup)
	}
	if c.Refs > 0 {
		s += fmt.Sprintf(", after %s references", number(float64(c.Refs)))
	}
	return s
}

func bytesOf(size int) string {
	if size >= 1<<20 {
		return fmt.Sprintf("%d MiB", size>>20)
	}
	return fmt.Sprintf("%d KiB", size>>10)
}

// questions says what the series are about, and what is not in them.
func questions(b *bytes.Buffer, lines []driver.Line) {
	series, err := plan.Profile(lines[0].Profile)
	if err != nil {
		return // results of a profile that is no more have no questions
	}
	fmt.Fprint(b, "\n## The series\n\n")
	said := map[string]bool{}
	for _, s := range series {
		if said[s.Name] {
			continue
		}
		said[s.Name] = true
		fmt.Fprintf(b, "- %s: %s", s.Name, s.Question)
		if s.Omits != "" {
			fmt.Fprintf(b, " Left out: %s.", s.Omits)
		}
		fmt.Fprintln(b)
	}
}

func openings(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## Opening\n\n| index | references | after Close | after kill -9 |\n|---|--:|--:|--:|\n")
	for i := range lines {
		if l := &lines[i]; l.Cell.Op == cell.Opening {
			fmt.Fprintf(b, "| %s | %d | %s | %s |\n", l.Cell.Index, l.References, short(l.OpenClean), short(l.OpenKilled))
		}
	}
}

// passes are the operations that go over a whole store once.
var passes = []string{cell.Verify, cell.Backup, cell.Rebuild}

func upkeep(b *bytes.Buffer, lines []driver.Line) {
	isPass := func(l driver.Line) bool { return slices.Contains(passes, l.Cell.Op) }
	if !slices.ContainsFunc(lines, isPass) {
		return
	}
	fmt.Fprint(b, "\n## Upkeep\n\n| pass | references | seconds | per second | heap live, peak MiB | RSS MiB |\n|---|--:|--:|--:|--:|--:|\n")
	for i := range lines {
		if l := &lines[i]; isPass(*l) {
			fmt.Fprintf(b, "| %s | %d | %.1f | %.0f | %d, %d | %d |\n",
				l.Cell.Op, l.References, l.Seconds, l.PerSecond, l.HeapLive>>20, l.HeapPeak>>20, l.RSSPeak>>20)
		}
	}
}

func cells(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## Every cell\n\nWritten: by the device, per byte of new blobs. ops/commit: counted by the index, or (s) by its Sync hook.\n\n"+
		"| series | cell | per second | p50 | p95 | p99 | p99.9 | allocs/op | heap live, peak MiB | RSS MiB | written | index B/ref | commits/s | ops/commit |\n"+
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range lines {
		l := &lines[i]
		if l.Cell.Op == cell.Opening || slices.Contains(passes, l.Cell.Op) {
			continue
		}
		rate, per := "", ""
		if l.Commits > 0 {
			rate, per = fmt.Sprintf("%.0f", float64(l.Commits)/l.Seconds), fmt.Sprintf("%.1f", float64(l.Ops)/float64(l.Commits))
			if l.CommitsBy != "index" {
				per += " (s)"
			}
		}
		t := l.Latency
		fmt.Fprintf(b, "| %s | %s | %.0f | %s | %s | %s | %s | %.0f | %d, %d | %d | %s | %s | %s | %s |\n",
			l.Cell.Series, l.Cell.Name(), l.PerSecond, short(t.P50), short(t.P95), short(t.P99), short(t.P999), l.AllocsPerOp,
			l.HeapLive>>20, l.HeapPeak>>20, l.RSSPeak>>20, nonzero("%.2f", l.Amplification()), nonzero("%.0f", l.BytesPerRef()), rate, per)
	}
}

// short is nanoseconds in three digits or so.
func short(ns int64) string {
	d := time.Duration(ns)
	for unit := time.Second; unit > 1; unit /= 1000 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

func nonzero(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// benchmarks is the results as `go test -bench` would print them.
func benchmarks(lines []driver.Line) []byte {
	var b bytes.Buffer
	for i := range lines {
		if l := &lines[i]; l.Ops > 0 && l.PerSecond > 0 {
			fmt.Fprintf(&b, "BenchmarkCell/%s %d %.0f ns/op %.1f allocs/op %d p99-ns\n",
				l.Cell.Name(), l.Ops, 1e9/l.PerSecond, l.AllocsPerOp, l.Latency.P99)
		}
	}
	return b.Bytes()
}
