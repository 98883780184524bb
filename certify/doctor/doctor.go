// Package doctor looks at a store, and at what it stands on, without opening it: so
// it works on a store that is damaged, locked by another process, or not there yet.
// It changes nothing; to see whether files can be made and linked, it makes a
// directory of its own beside the index for a moment.
//
// It is no part of the engine, whose first step is recovery, and has nothing of it but
// names and numbers. The index it reads by itself (index.go): what is wrong there must
// not stop the doctor.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/mediabolt/mediabolt/certify/mount"
	"github.com/mediabolt/mediabolt/engine"
)

// Names of what a store consists of.
var (
	layout        = engine.ControlLayout()
	controlDir    = layout.Dir
	indexName     = layout.Index.Index
	sumsName      = layout.Index.Sums
	reserveName   = layout.Index.Reserve
	logNames      = layout.Index.Logs[:]
	stagingDir    = layout.Staging
	quarantineDir = layout.Quarantine
)

// Severity of a finding.
type Severity string

const (
	Fine    Severity = "ok"
	Note    Severity = "note"    // worth knowing
	Warning Severity = "warning" // will be wrong some day, or costs a promise in part
	Problem Severity = "problem" // is wrong: a promise does not hold, or nothing can be stored
)

// Finding is one thing that was looked at, in words.
type Finding struct {
	Topic    string   `json:"topic"` // filesystem, space, permissions, clock, lock, index, leftovers, limits
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Advice   string   `json:"advice,omitempty"` // what to do, where something can be done
}

// Report is what there is to say of a directory.
type Report struct {
	Dir      string      `json:"dir"`   // absolute
	Store    bool        `json:"store"` // there is one
	OK       bool        `json:"ok"`    // no finding is a problem
	Disk     mount.Mount `json:"disk"`
	Space    Space       `json:"space"`
	Lock     Lock        `json:"lock"`
	Index    *Index      `json:"index"`      // null: there is none, or it was not read
	Staging  Pile        `json:"staging"`    // what is being stored, or was left by a crash
	Aside    Pile        `json:"quarantine"` // what repair has set aside
	Findings []Finding   `json:"findings"`

	look string // the directory that is there: Dir, or the nearest one above it
	now  time.Time
}

func (r *Report) add(topic string, severity Severity, advice, format string, args ...any) {
	advice = strings.ReplaceAll(advice, theStore, r.quoted())
	r.Findings = append(r.Findings, Finding{Topic: topic, Severity: severity, What: fmt.Sprintf(format, args...), Advice: advice})
	r.OK = r.OK && severity != Problem
}

// theStore stands for the directory of the store in a command of an advice.
const theStore = "DIR"

// quoted is the directory of the store for a shell.
func (r *Report) quoted() string {
	if strings.ContainsFunc(r.Dir, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("/._-", c)
	}) {
		return "'" + strings.ReplaceAll(r.Dir, "'", `'\''`) + "'"
	}
	return r.Dir
}

func (r *Report) control(names ...string) string {
	return filepath.Join(append([]string{r.Dir, controlDir}, names...)...)
}

// Examine looks at the store in a directory, or at where one would be made. What it
// cannot find out is a finding. An error is ctx's, or says that the path cannot be
// made sense of at all.
func Examine(ctx context.Context, dir string) (*Report, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Dir: abs, OK: true, now: time.Now()}
	r.Disk.Options = []string{}
	if err := r.find(); err != nil {
		return nil, err
	}
	for _, examine := range []func(context.Context){
		r.disk, r.space, r.permissions, r.lock, r.files, r.index, r.clock, r.leftovers, r.limits,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		examine(ctx)
	}
	return r, ctx.Err()
}

// find tells what is there.
func (r *Report) find() error {
	info, err := os.Stat(r.Dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", r.Dir)
	}
	r.look = r.Dir
	for errors.Is(err, fs.ErrNotExist) && r.look != filepath.Dir(r.look) {
		r.look = filepath.Dir(r.look)
		_, err = os.Stat(r.look)
	}
	if err != nil {
		return err
	}
	_, err = os.Lstat(r.control())
	r.Store = err == nil
	switch {
	case r.Store:
	case r.look == r.Dir:
		r.add("store", Note, "'mediabolt put --store DIR FILE' makes one", "no store here yet")
	default:
		r.add("store", Note, "'mediabolt put --store DIR FILE' makes it", "no such directory; %s is looked at", r.look)
	}
	return nil
}

// disk tells of the filesystem, and tries what only a try can tell.
func (r *Report) disk(context.Context) {
	const topic = "filesystem"
	m, err := mount.Of(r.look)
	if err != nil {
		r.add(topic, Warning, "", "cannot tell which it is: %v", err)
	} else if r.Disk = m; m.Filesystem == "" {
		r.add(topic, Note, "a store belongs on a local filesystem with a journal; 'mediabolt certify DIR' measures this one", "this system does not tell which it is")
	}
	concerns := r.Disk.Concerns()
	if links, err := r.tryLinks(); err == nil && !links {
		concerns = append(concerns, mount.NoHardLinks)
	}
	for _, c := range concerns {
		severity := Note
		if c.Grave {
			severity = Problem
		}
		r.add(topic, severity, "", "%s", c.Text)
	}
	if len(concerns) == 0 && r.Disk.Filesystem != "" {
		r.add(topic, Fine, "", "%s, with nothing that breaks the promises", r.Disk.Filesystem)
	}
}

// tryLinks makes a file and links it, where that leaves no trace.
func (r *Report) tryLinks() (links bool, err error) {
	if r.look != r.Dir {
		return false, errors.ErrUnsupported
	}
	at := r.Dir
	if r.Store {
		at = r.control()
	}
	dir, err := os.MkdirTemp(at, "doctor-*")
	if err != nil {
		advice := "check the owner and the mode of this directory"
		if errors.Is(err, syscall.EROFS) {
			advice = "the filesystem is mounted read-only: see 'dmesg' for why, and mount it to be written to"
		}
		r.add("permissions", Problem, advice, "nothing can be made in %s: %v", at, err)
		return false, err
	}
	defer func() {
		if failed := os.RemoveAll(dir); failed != nil {
			r.add("permissions", Warning, "remove it", "%s stays behind: %v", dir, failed)
		}
	}()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		r.add("permissions", Problem, "make room", "no file can be written in %s: %v", dir, err)
		return false, err
	}
	return os.Link(name, name+"-again") == nil, nil
}
