// Package driver goes through the cells of a profile, and keeps what it has
// measured as lines of JSON, so that a run can go on where an earlier one ended.
package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/plan"
)

// Run is one run of a profile.
type Run struct {
	Profile  string
	Revision string // of the code
	Series   []plan.Series
	Dir      string         // for scratch directories, on the filesystem to be measured
	Out      string         // the results file
	Mix      bool           // go on with a results file of another revision or machine
	Only     *regexp.Regexp // of series and name, as "writers scope=engine/..."; nil: all
	Progress io.Writer
	// Measure and Fill are cell's.
	Measure func(ctx context.Context, c cell.Cell, dir string) (*cell.Result, error)
	Fill    func(ctx context.Context, c cell.Cell, dir string) error
}

// Do measures what the results file does not have of this profile. A cell that
// fails leaves the others as they are: what failed is the error in the end. It
// leaves no scratch directory behind.
func (r *Run) Do(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(r.Dir, "mediabench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	origin := Origin{r.Revision, Describe(dir)}
	out, err := openResults(r.Out, origin, r.Mix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.file.Close()) }()
	todo := r.missing(out)
	t := newTimer(todo)
	var failures []error
	for i, c := range todo {
		fmt.Fprintf(r.Progress, "[%d/%d, %s left] %s %s\n", i+1, len(todo), t.left(i), c.Series, c.Name())
		begin := time.Now()
		res, err := r.cell(ctx, c, dir, i+1 < len(todo) && c.LeavesFor(&todo[i+1]))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fmt.Fprintf(r.Progress, "failed: %v\n", err)
			failures = append(failures, err)
			continue
		}
		if err := out.append(&Line{r.Profile, origin, time.Since(begin).Seconds(), *res}); err != nil {
			return err
		}
	}
	return errors.Join(failures...)
}

func (r *Run) missing(out *results) (todo []cell.Cell) {
	for _, s := range r.Series {
		for _, c := range s.Cells {
			l := Line{Profile: r.Profile, Result: cell.Result{Cell: c}}
			if !out.have[l.key()] && (r.Only == nil || r.Only.MatchString(c.Series+" "+c.Name())) {
				todo = append(todo, c)
			}
		}
	}
	return todo
}

// cell fills a store, unless there is one of the cell before, and measures. The
// store is kept for the next cell if keep is set and nothing failed.
func (r *Run) cell(ctx context.Context, c cell.Cell, dir string, keep bool) (_ *cell.Result, err error) {
	store := filepath.Join(dir, "store")
	defer func() {
		if !keep || err != nil {
			err = errors.Join(err, os.RemoveAll(store))
		}
	}()
	if _, err := os.Stat(store); err != nil {
		if err := os.Mkdir(store, 0o700); err != nil {
			return nil, err
		}
		if err := r.Fill(ctx, c, store); err != nil {
			return nil, err
		}
	}
	return r.Measure(ctx, c, store)
}

// timer estimates the time that is left from what was spent so far.
type timer struct {
	begin time.Time
	costs []time.Duration
}

// What a cell is taken to cost beyond its measurement: the process, the files,
// the syncs, and for rows to be filled in.
const (
	overhead   = time.Second
	rowsFilled = 15_000 // per second: by boltindex, of a million
)

func newTimer(cells []cell.Cell) *timer {
	t := &timer{begin: time.Now()}
	for i, c := range cells {
		cost := c.Time + overhead
		if c.Op == cell.Opening {
			cost = 4 * cost
		}
		if i == 0 || !cells[i-1].LeavesFor(&c) {
			cost += time.Duration(c.Refs) * time.Second / rowsFilled
		}
		t.costs = append(t.costs, cost)
	}
	return t
}

// left is the time from the i-th cell to the end: what that is taken to cost,
// corrected by how the cells before it went.
func (t *timer) left(i int) time.Duration {
	var before, after time.Duration
	for k, cost := range t.costs {
		if k < i {
			before += cost
		} else {
			after += cost
		}
	}
	if before > 0 {
		after = time.Duration(float64(after) * float64(time.Since(t.begin)) / float64(before))
	}
	return after.Round(time.Second)
}
