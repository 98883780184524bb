package report

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
)

// Measures of a plot.
const (
	width      = 24 * vg.Centimeter
	height     = 13 * vg.Centimeter
	margin     = 4 * vg.Millimeter
	legendRoom = 5.2 * vg.Centimeter
	lineWidth  = vg.Length(1.6)
	dotRadius  = vg.Length(3.2)
)

// figure is what a plot shows: a point of some cells, on a line of some look.
type figure struct {
	file, title, x, y string
	// empty stands at 0, which has no place on a log axis, if x may be that.
	empty float64
	point func(*driver.Line) (look look, x, y float64, ok bool)
}

type plotted struct{ file, title string }

// emptyIndex is where an empty index stands among numbers of references.
const emptyIndex = 1000

var figures = []figure{
	{
		"writers.svg", "Durable stores of new 100 KiB blobs through the engine, by index (json-nosync: not durable)",
		"writers at the same time", "stores per second", 0,
		func(l *driver.Line) (look, float64, float64, bool) {
			return look{index: l.Cell.Index}, float64(l.Cell.Writers), l.PerSecond, l.Cell.Series == "writers"
		},
	},
	latency(cell.Store, "store.svg", "Latency of adding a reference to an index alone, 64 writers, durable (json-nosync: not)"),
	latency(cell.Retrieve, "lookup.svg", "Latency of looking a reference up in an index alone, 64 readers"),
	{
		"whole.svg", "Latency of a whole store on boltindex, 100 KiB blobs, 64 at the same time",
		"references in the index before", "p99 in milliseconds", emptyIndex,
		func(l *driver.Line) (look, float64, float64, bool) {
			return look{index: l.Cell.Index, op: l.Cell.Op}, float64(l.Cell.Refs), float64(l.Latency.P99) / 1e6, l.Cell.Series == "whole"
		},
	},
	{
		"bytes.svg", "Room that an index takes on disk, each reference with four IDs and a blob of its own",
		"references in the index", "bytes per reference", 0,
		func(l *driver.Line) (look, float64, float64, bool) {
			shown := l.Cell.Series == "growth" && l.Cell.Op == cell.Retrieve && l.Cell.Refs > 0
			return look{index: l.Cell.Index}, float64(l.References), l.BytesPerRef(), shown
		},
	},
}

// latency is the figure of an operation as an index grows.
func latency(op, file, title string) figure {
	return figure{
		file, title, "references in the index before", "p99 in milliseconds", emptyIndex,
		func(l *driver.Line) (look, float64, float64, bool) {
			return look{index: l.Cell.Index}, float64(l.Cell.Refs), float64(l.Latency.P99) / 1e6, l.Cell.Series == "growth" && l.Cell.Op == op
		},
	}
}

// look tells lines apart. An index has the same color in every plot; where there
// is one index alone, an operation has one.
type look struct{ index, op string }

// The colors of Okabe and Ito, which the color-blind can tell apart, and shapes.
var (
	colors = []color.RGBA{
		{0x00, 0x72, 0xb2, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x79, 0xa7, 0xff},
		{0x56, 0xb4, 0xe9, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0xb0, 0xa8, 0x00, 0xff}, {0x7f, 0x5c, 0x3c, 0xff},
	}
	shapes = []draw.GlyphDrawer{
		draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.SquareGlyph{},
		draw.TriangleGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}, draw.RingGlyph{},
	}
	looks = map[string][]string{
		"index": {"boltindex", "pebble", "badger", "sqlite", "bbolt-batch", "bbolt-update", "json-sync", "json-nosync"},
		"op":    {cell.Store, cell.Retrieve, cell.Open, cell.Mixed, cell.List, cell.DeleteOld, cell.StoreText, cell.Delete},
	}
)

func (k look) name() string {
	switch {
	case k.op != "":
		return k.op
	case k.index == "":
		return "floor: no index"
	}
	return k.index
}

func (k look) number() int {
	if k.op != "" {
		return slices.Index(looks["op"], k.op)
	}
	return slices.Index(looks["index"], k.index)
}

func (k look) style(line *plotter.Line, dots *plotter.Scatter) {
	line.Width, dots.Radius = lineWidth, dotRadius
	n := k.number()
	if n < 0 { // a floor, or a strategy that is not of this module
		line.Color, line.Dashes = color.Black, []vg.Length{4, 3}
		dots.Color, dots.Shape = color.Black, draw.CrossGlyph{}
		return
	}
	line.Color, dots.Color, dots.Shape = colors[n], colors[n], shapes[n]
	if k.index == "boltindex" && k.op == "" {
		line.Width = 2 * lineWidth
	}
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

// points are those of the figure, by line.
func (f *figure) points(lines []driver.Line) map[look]plotter.XYs {
	points := map[look]plotter.XYs{}
	for i := range lines {
		k, x, y, ok := f.point(&lines[i])
		if x == 0 {
			x = f.empty
		}
		if ok && x > 0 && y > 0 {
			points[k] = append(points[k], plotter.XY{X: x, Y: y})
		}
	}
	return points
}

// draw writes the plot, both axes logarithmic, unless there is nothing to show.
func (f *figure) draw(lines []driver.Line, file string) (bool, error) {
	points := f.points(lines)
	if len(points) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.x, f.y
	p.Title.TextStyle.Font.Size, p.Title.Padding = font.Points(13), font.Points(8)
	p.Add(plotter.NewGrid())
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, 1.2*vg.Millimeter
	var xs []float64
	for _, k := range f.order(points) {
		xys := points[k]
		slices.SortFunc(xys, func(a, b plotter.XY) int { return int(a.X - b.X) })
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return false, err
		}
		k.style(line, dots)
		p.Add(line, dots)
		legend.Add(k.name(), line, dots)
		for _, xy := range xys {
			xs = append(xs, xy.X)
		}
	}
	f.scale(p, xs)
	return true, save(p, &legend, file)
}

// order is that of the legend: the floor, and then the names of looks.
func (f *figure) order(points map[look]plotter.XYs) (ks []look) {
	for k := range points {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b look) int {
		if n := a.number() - b.number(); n != 0 {
			return n
		}
		return strings.Compare(a.name(), b.name())
	})
	return ks
}

// scale sets the axes: room for a line of one point, and a tick for every x.
func (f *figure) scale(p *plot.Plot, xs []float64) {
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Min, p.X.Max = p.X.Min/1.3, p.X.Max*1.3
	p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*1.5
	slices.Sort(xs)
	var ticks plot.ConstantTicks
	for i, x := range xs {
		if i > 0 && x < ticks[len(ticks)-1].Value*1.1 { // too near for two labels
			continue
		}
		label := number(x)
		if x == f.empty {
			label = "empty"
		}
		ticks = append(ticks, plot.Tick{Value: x, Label: label})
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks, plot.TickerFunc(decades)
}

// decades are ticks at 1, 2 and 5 of every power of ten; the labels of a long
// axis are those of the powers.
func decades(low, high float64) (ticks []plot.Tick) {
	long := high/low > 2000
	for power := math.Floor(math.Log10(low)); power <= math.Log10(high); power++ {
		for _, digit := range []float64{1, 2, 5} {
			v := digit * math.Pow(10, power)
			if v < low || v > high {
				continue
			}
			t := plot.Tick{Value: v}
			if digit == 1 || !long {
				t.Label = number(v)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// number is short: 10 thousand are 10k.
func number(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return fmt.Sprintf("%.3g%s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

// save writes the plot with the legend at its right, where no line is.
func save(p *plot.Plot, legend *plot.Legend, file string) error {
	canvas := vgsvg.New(width, height)
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Rectangle.Path())
	inner := draw.Crop(all, margin, -margin, margin, -margin)
	p.Draw(draw.Crop(inner, 0, -legendRoom, 0, 0))
	legend.Draw(draw.Crop(inner, width-2*margin-legendRoom+margin, 0, 0, -1.5*vg.Centimeter))
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(out)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}
