package main

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Work that takes long shows how it goes on standard error: on a terminal by a bar
// with words, elsewhere by a line now and then.
const (
	terminalDelay = time.Second            // before the first on a terminal, for most work is done by then
	terminalPause = 100 * time.Millisecond // between two on a terminal
	plainPause    = 10 * time.Second       // default of --progress
)

// progress shows how far work has come, how fast, and how long it will take. Its
// methods are for one goroutine at a time.
type progress struct {
	app      *app
	terminal bool
	what     string // is being done
	unit     string // what is counted, in the plural; empty: bytes
	done     int64
	total    int64 // not above zero: not known
	begun    time.Time
	first    int64                    // done when it began
	next     time.Time                // when the next line is due
	bar      *progressbar.ProgressBar // nil until it was drawn
}

func (a *app) newProgress(what, unit string) *progress {
	p := &progress{app: a, terminal: term.IsTerminal(int(a.stderr.Fd())), what: what, unit: unit, begun: time.Now()}
	p.next = p.begun.Add(a.progressPause)
	if p.terminal {
		p.next = p.begun.Add(terminalDelay)
	}
	return p
}

// step says what is being done, of which some is done already. The rate begins anew
// where that is something else.
func (p *progress) step(what, unit string, done int64) {
	if what == p.what && unit == p.unit {
		return
	}
	p.what, p.unit, p.done, p.total = what, unit, done, 0
	p.begun, p.first = time.Now(), done
	p.clear()
	p.bar = nil
}

// describe says in other words what is being done.
func (p *progress) describe(what string) { p.what = what }

func (p *progress) add(n int64) { p.set(p.done+n, p.total) }

// set says how much is done of how much.
func (p *progress) set(done, total int64) {
	p.done, p.total = done, total
	now := time.Now()
	if p.app.progressPause <= 0 || now.Before(p.next) {
		return
	}
	if p.terminal {
		p.next = now.Add(terminalPause)
		p.draw()
		return
	}
	p.next = now.Add(p.app.progressPause)
	p.say()
}

// rate is how much is done in a second.
func (p *progress) rate() float64 {
	const least = 1e-3 // seconds; so that it is a number
	return float64(p.done-p.first) / max(time.Since(p.begun).Seconds(), least)
}

// left is how long it will take, where that is known.
func (p *progress) left() (_ time.Duration, known bool) {
	rate := p.rate()
	if rate <= 0 || p.total <= 0 || p.total < p.done {
		return 0, false
	}
	return time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second), true
}

// line is all of it in words.
func (p *progress) line() string {
	if p.done <= 0 && p.total <= 0 {
		return p.what
	}
	amount, unit := humanize.Comma, " "+p.unit
	if p.unit == "" {
		amount, unit = humanBytes, ""
	}
	line := p.what + ": " + amount(p.done)
	if p.total > 0 {
		line += " of " + amount(p.total)
	}
	line += fmt.Sprintf("%s, %s/s", unit, amount(int64(p.rate())))
	if left, known := p.left(); known {
		line += ", " + left.String() + " left"
	}
	return line
}

// progressRecord is how far work is in JSON.
type progressRecord struct {
	Note        string   `json:"note"` // all of it in words
	Doing       string   `json:"doing"`
	Unit        string   `json:"unit"` // what is counted, such as "bytes"
	Done        int64    `json:"done"`
	Total       int64    `json:"total"` // 0: not known
	PerSecond   float64  `json:"per_second"`
	SecondsLeft *float64 `json:"seconds_left"` // null: not known
}

// say prints a line where there is no terminal.
func (p *progress) say() {
	if !p.app.asJSON {
		p.app.note("%s", p.line())
		return
	}
	unit := p.unit
	if unit == "" {
		unit = "bytes"
	}
	record := progressRecord{p.line(), p.what, unit, p.done, max(p.total, 0), p.rate(), nil}
	if left, known := p.left(); known {
		seconds := left.Seconds()
		record.SecondsLeft = &seconds
	}
	_ = writeJSON(p.app.stderr, &record) // only decorates
}

// Room on a terminal's line beside words: barColumns for the bar where that leaves
// wordColumns, and around it the percentage, its brackets, a space and a column that
// stays free, for with the last some terminals go on to the next line.
const (
	barColumns   = 24
	wordColumns  = 70
	frameColumns = len("  100% ||") + 2
)

// draw draws the bar over the last one, and before it the line, as much of it as there
// is room for.
func (p *progress) draw() {
	columns, _, err := term.GetSize(int(p.app.stderr.Fd()))
	if err != nil {
		columns = wordColumns
	}
	width := min(barColumns, max(columns-wordColumns, 0))
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(p.app.stderr), progressbar.OptionSetWidth(width),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionSetPredictTime(false), progressbar.OptionSetRenderBlankState(false),
			progressbar.OptionSetSpinnerChangeInterval(0)) // which draws by itself, beside set
	}
	if p.total > 0 {
		p.bar.ChangeMax64(max(p.total, p.done+1)) // one that is full is ended
	}
	p.bar.Describe(clip(p.line(), max(columns-width-frameColumns, 1)))
	_ = p.bar.Set64(p.done) // only decorates
}

// clear makes room for a line on a terminal; the next set draws the bar again.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear() // only decorates
	}
}

// watchedReader tells a progress what passes through it.
type watchedReader struct {
	r io.Reader
	p *progress
}

func (w watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.p.add(int64(n))
	return n, err
}

// watchedWriter tells a progress what passes through it.
type watchedWriter struct {
	w io.Writer
	p *progress
}

func (w watchedWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.p.add(int64(n))
	return n, err
}
