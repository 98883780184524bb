package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressDelay is how long work may take before it shows how it goes.
const progressDelay = time.Second

// plainPause is between two lines that say how far work is where there is no
// terminal.
const plainPause = 10 * time.Second

// progress shows on a terminal how far work that takes long has come.
type progress struct {
	app     *app
	plainly bool // say it in lines where there is no terminal
	said    time.Time
	w       *os.File
	on      bool
	what    string
	inBytes bool
	total   int64 // negative: not known
	done    int64
	first   int64 // done before it began
	begun   time.Time
	bar     *progressbar.ProgressBar // nil until the delay is over
}

func (a *app) newProgress(what string, total int64, inBytes bool) *progress {
	return &progress{
		app: a, said: time.Now(), w: a.stderr, on: term.IsTerminal(int(a.stderr.Fd())), what: what, inBytes: inBytes, total: total, begun: time.Now(),
	}
}

func (p *progress) add(n int64) { p.set(p.done+n, p.total) }

// set says how much is done of how much.
func (p *progress) set(done, total int64) {
	p.done, p.total = done, total
	if !p.on && p.plainly && time.Since(p.said) >= plainPause {
		p.said = time.Now()
		p.app.note("%s", p.line())
	}
	if !p.on || time.Since(p.begun) < progressDelay {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(p.what),
			progressbar.OptionShowBytes(p.inBytes), progressbar.OptionShowCount(), progressbar.OptionSetWidth(24),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetElapsedTime(false))
	}
	if total >= 0 {
		p.bar.ChangeMax64(max(total, 1))
	}
	_ = p.bar.Set64(done) // only decorates
}

// line says in words how far the work is, how fast, and how long it will take.
func (p *progress) line() string {
	amount := func(n int64) string { return humanize.Comma(n) }
	if p.inBytes {
		amount = humanBytes
	}
	took := time.Since(p.begun).Seconds()
	rate := float64(p.done-p.first) / max(took, 1e-3)
	line := fmt.Sprintf("%s: %s of %s, %s/s", p.what, amount(p.done), amount(p.total), amount(int64(rate)))
	if rate > 0 && p.total >= p.done {
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
		line += ", " + left.Round(time.Second).String() + " left"
	}
	return line
}

// describe says what is being done.
func (p *progress) describe(what string) {
	p.what = what
	if p.bar != nil {
		p.bar.Describe(what)
	}
}

// clear makes room for a line; the next set shows the bar again.
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

// watchedWriter tells a progress what passes through it, and fails once its
// context has ended.
type watchedWriter struct {
	ctx context.Context
	w   io.Writer
	p   *progress
}

func (w watchedWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.w.Write(b)
	w.p.add(int64(n))
	return n, err
}
