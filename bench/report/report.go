// Package report makes a page and plots of measured cells.
package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
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
	fmt.Fprintf(&b, "# Measured: profile %s\n\n%s.\n\n", lines[0].Profile, lines[0].Machine)
	fmt.Fprintf(&b, "Writes are durable, except for `json-nosync`. Every cell ran in a process of its own, with GOGC=1600, in turn: "+
		"what else the machine did met some and not others, so small differences mean nothing. Latencies are those of a closed loop.\n")
	fmt.Fprintf(&b, "There is no rebuild of an index yet, so none was timed.\n")
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%s](%s)\n", p.title, p.file)
	}
	ratios(&b, lines)
	rivals(&b, lines)
	openings(&b, lines)
	cells(&b, lines)
	return b.Bytes()
}

// floors names the floor that an operation of the engine is held to.
var floors = map[string]string{cell.Store: cell.Create, cell.Retrieve: cell.ReadBase64, cell.Open: cell.ReadFile}

func ratios(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## To the floors\n\n| engine | per second | floor | per second | ratio |\n|---|--:|---|--:|--:|\n")
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
				fmt.Fprintf(b, "| %s | %.0f | %s | %.0f | %.2f |\n", l.Cell.Name(), l.PerSecond, want, f.PerSecond, l.PerSecond/f.PerSecond)
			}
		}
	}
}

// rivals sets every index beside boltindex, in cells that are otherwise the same.
func rivals(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## To the other indexes\n\n| cell | boltindex, per second | other | per second | ratio |\n|---|--:|---|--:|--:|\n")
	for i := range lines {
		ours := &lines[i]
		if ours.Cell.Index != "boltindex" || ours.Cell.Op == cell.Opening {
			continue
		}
		for k := range lines {
			r, same := &lines[k], lines[k].Cell
			same.Index = ours.Cell.Index
			if r.Cell.Index != ours.Cell.Index && same == ours.Cell {
				fmt.Fprintf(b, "| %s | %.0f | %s | %.0f | %.2f |\n",
					strings.TrimSuffix(ours.Cell.Name(), "/index=boltindex"), ours.PerSecond, r.Cell.Index, r.PerSecond, ours.PerSecond/r.PerSecond)
			}
		}
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

func cells(b *bytes.Buffer, lines []driver.Line) {
	fmt.Fprint(b, "\n## Every cell\n\nWritten: by the device, per byte of new blobs. ops/commit: counted by the index, or (s) by its Sync hook.\n\n"+
		"| series | cell | per second | p50 | p95 | p99 | p99.9 | allocs/op | heap live, peak MiB | RSS MiB | written | index B/ref | commits/s | ops/commit |\n"+
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range lines {
		l := &lines[i]
		if l.Cell.Op == cell.Opening {
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
