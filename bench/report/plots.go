package report

import (
	"fmt"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
)

// Size of a plot.
const (
	width  = 20 * vg.Centimeter
	height = 12 * vg.Centimeter
)

// figure is what a plot shows: a point of some cells, on a line of some name.
type figure struct {
	file, title, x, y string
	point             func(*driver.Line) (line string, x, y float64, ok bool)
}

type plotted struct{ file, title string }

var figures = []figure{
	{"writers.svg", "Throughput against writers, new 100 KiB blobs", "writers", "stores per second",
		func(l *driver.Line) (string, float64, float64, bool) {
			return subject(&l.Cell), float64(l.Cell.Writers), l.PerSecond, l.Cell.Series == "writers"
		}},
	{"latency.svg", "Latency (p99) against the size of the index, 64 writers", "references", "milliseconds",
		func(l *driver.Line) (string, float64, float64, bool) {
			// An empty index has no place on a log axis: it stands at 1000.
			return l.Cell.Index + " " + l.Cell.Op, float64(max(1000, l.Cell.Refs)), float64(l.Latency.P99) / 1e6, l.Cell.Series == "growth"
		}},
	{"bytes.svg", "Index on disk per reference, new rows included", "references", "bytes",
		func(l *driver.Line) (string, float64, float64, bool) {
			return l.Cell.Index, float64(l.Cell.Refs), l.BytesPerRef(), l.Cell.Series == "growth" && l.Cell.Op == cell.Retrieve && l.Cell.Refs > 0
		}},
}

func subject(c *cell.Cell) string {
	if c.Index == "" {
		return "floor: " + c.Op
	}
	return c.Index
}

// drawAll draws the figures that there are points for.
func drawAll(lines []driver.Line, dir string) (done []plotted, err error) {
	for _, f := range figures {
		drawn, err := f.draw(lines, filepath.Join(dir, f.file))
		if err != nil {
			return nil, fmt.Errorf("plot %s: %w", f.file, err)
		}
		if drawn {
			done = append(done, plotted{f.file, f.title})
		}
	}
	return done, nil
}

// draw writes the plot, both axes logarithmic, unless there is nothing to show.
func (f *figure) draw(lines []driver.Line, file string) (bool, error) {
	points := map[string]plotter.XYs{}
	var names []string
	for i := range lines {
		name, x, y, ok := f.point(&lines[i])
		if !ok || x <= 0 || y <= 0 {
			continue
		}
		if points[name] == nil {
			names = append(names, name)
		}
		points[name] = append(points[name], plotter.XY{X: x, Y: y})
	}
	if len(names) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.x, f.y
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Scale, axis.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, name := range names {
		xys := points[name]
		slices.SortFunc(xys, func(a, b plotter.XY) int { return int(a.X - b.X) })
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return false, err
		}
		line.Color, line.Dashes = plotutil.Color(i), plotutil.Dashes(i/7)
		dots.Color, dots.Shape = plotutil.Color(i), plotutil.Shape(i)
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	// Room for a line of one point, and for the legend above the lines.
	p.X.Min, p.X.Max = p.X.Min/1.5, p.X.Max*1.5
	p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*10
	return true, p.Save(width, height, file)
}
