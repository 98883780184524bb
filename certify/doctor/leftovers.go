package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Pile is a number of files.
type Pile struct {
	Files  int       `json:"files"`
	Bytes  int64     `json:"bytes"`
	Oldest time.Time `json:"oldest,omitzero"` // absent: there are none
}

func (p Pile) String() string {
	noun := "files"
	if p.Files == 1 {
		noun = "file"
	}
	return fmt.Sprintf("%d %s of %s", p.Files, noun, humanize.IBytes(uint64(p.Bytes)))
}

// pileOf counts the files below a directory, which may be missing.
func pileOf(ctx context.Context, dir string) (p Pile, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is gone
		} else if err != nil {
			return err
		}
		p.Files++
		p.Bytes += info.Size()
		if p.Oldest.IsZero() || info.ModTime().Before(p.Oldest) {
			p.Oldest = info.ModTime()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return p, err
}

// leftovers looks at what is between two states.
func (r *Report) leftovers(ctx context.Context) {
	const topic = "leftovers"
	if !r.Store {
		return
	}
	var err error
	if r.Staging, err = pileOf(ctx, r.control(stagingDir)); err != nil {
		r.add(topic, Problem, "", "cannot look at what is staged: %v", err)
	}
	switch {
	case r.Staging.Files == 0:
		r.add(topic, Fine, "", "nothing is staged")
	case r.Lock.Held:
		r.add(topic, Fine, "", "%s staged, of the process that has the store open", r.Staging)
	default:
		r.add(topic, Note, "nothing to do: the next command finishes or removes them, such as 'mediabolt verify --store DIR'", "%s staged, since %s: a process was killed, or the power failed",
			r.Staging, humanize.RelTime(r.Staging.Oldest, r.now, "ago", "from now"))
	}
	if r.Aside, err = pileOf(ctx, r.control(quarantineDir)); err != nil {
		r.add(topic, Warning, "", "cannot look into the quarantine: %v", err)
	} else if r.Aside.Files > 0 {
		r.add(topic, Note, "'mediabolt quarantine ls --store DIR' tells what it is; 'mediabolt quarantine purge --store DIR --older-than 30d' removes it, which nothing does by itself",
			"%s in quarantine since %s", r.Aside, humanize.RelTime(r.Aside.Oldest, r.now, "ago", "from now"))
	}
	r.temporary()
}

// temporary looks for what was being made beside the index.
func (r *Report) temporary() {
	entries, err := os.ReadDir(r.control())
	if err != nil {
		r.add("leftovers", Problem, "", "cannot look into %s: %v", r.control(), err)
		return
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") && !r.Lock.Held {
			r.add("leftovers", Note, "nothing to do: it is removed, or written over, when it is in the way", "%s: its making was interrupted", e.Name())
		}
	}
}

// files looks whether what belongs to an index is there.
func (r *Report) files(context.Context) {
	if !r.Store {
		return
	}
	missing := func(name string) bool {
		_, err := os.Lstat(r.control(name))
		return errors.Is(err, fs.ErrNotExist)
	}
	if missing(indexName) {
		if !missing(stagingDir) {
			r.add("index", Problem, "'mediabolt rebuild --store DIR' makes it anew from the files and their sidecars; nothing does by itself", "%s is gone although the store has been used", indexName)
		}
		return
	}
	for _, name := range logNames {
		if missing(name) {
			r.add("index", Warning, "'mediabolt verify --store DIR' says whether sidecars tell of more than the index; then 'mediabolt rebuild --store DIR' makes the index anew from them",
				"%s is gone: the last commits are lost, unless the store had been closed in order", name)
		}
	}
	if missing(sumsName) {
		r.add("index", Note, "nothing to do: any command does that, such as 'mediabolt stats --store DIR'", "%s is gone: the next opening reads the whole index to make it anew", sumsName)
	}
	if missing(reserveName) && !r.Lock.Held {
		r.add("space", Warning, "make room; then any command makes the reserve anew, such as 'mediabolt stats --store DIR'", "the reserve is used up: deletions may fail while the disk is full")
	}
}

// believable is before any store was made: a clock that shows less was never set.
var believable = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// slack is how far clocks may differ that are set by a network.
const slack = 2 * time.Second

// clock compares the clock with what it said before.
func (r *Report) clock(context.Context) {
	const topic = "clock"
	if r.now.Before(believable) {
		r.add(topic, Problem, "set it, by NTP: references are in order of the clock", "the clock says %s", r.now.UTC().Format(time.RFC3339))
		return
	}
	if !r.Store {
		return
	}
	newest, what := time.Time{}, ""
	if r.Index != nil && !r.Index.Newest.IsZero() {
		newest, what = r.Index.Newest, "the newest reference"
	}
	for _, name := range append([]string{indexName}, logNames...) {
		if info, err := os.Lstat(r.control(name)); err == nil && info.ModTime().After(newest) {
			newest, what = info.ModTime(), "the last change of "+name
		}
	}
	if ahead := newest.Sub(r.now); ahead > slack {
		r.add(topic, Warning, "set the clock, by NTP; what is stored until it has caught up is listed before what is newer by its own time",
			"the clock was set back, or was ahead: %s is of %s, %s from now", what, newest.UTC().Format(time.RFC3339), ahead.Round(time.Second))
		return
	}
	r.add(topic, Fine, "", "the clock is after everything that was stored")
}
