package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// Work that takes long shows how it goes on standard error: on a terminal by one line
// that is written over and over, elsewhere by a line now and then.
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
	first    int64     // done when it began
	next     time.Time // when the next line is due
	shown    int       // characters of the line on the terminal
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
		p.draw(p.line())
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

// draw writes a line over the last one, as much of it as there is room for.
func (p *progress) draw(line string) {
	if width, _, err := term.GetSize(int(p.app.stderr.Fd())); err == nil && width > 1 {
		line = clip(line, width-1) // the last column makes some terminals go to the next line
	}
	length := utf8.RuneCountInString(line)
	_, _ = fmt.Fprintf(p.app.stderr, "\r%s%s\r", line, strings.Repeat(" ", max(p.shown-length, 0))) // only decorates
	p.shown = length
}

// clear makes room for a line on a terminal; the next set writes its own again.
func (p *progress) clear() {
	if p.shown > 0 {
		p.draw("")
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
