package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Exit codes; they are documented in the help of the root command and stable.
const (
	exitOK       = 0
	exitFailure  = 1
	exitSome     = 3
	exitNoStore  = 10
	exitLocked   = 11
	exitDamage   = 12
	exitNotFound = 13
	exitHeld     = 14
)

// outcome is what an error means to a caller of the program. Codes are stable.
type outcome struct {
	code string
	exit int
	hint string // what to do next; may be empty
}

// outcomes is in order of precedence: damage, say, comes before not found,
// since a live reference whose file vanished is both.
var outcomes = []struct {
	is error
	outcome
}{
	{context.Canceled, outcome{"interrupted", exitFailure, ""}},
	{errUsage, outcome{"usage", exitFailure, ""}},
	{errViolation, outcome{"violation", exitDamage, ""}},
	{storage.ErrNoStore, outcome{"no_store", exitNoStore,
		"check --store and " + storeVariable + "; 'mediabolt put FILE' makes a store where there is none"}},
	{storage.ErrLocked, outcome{"locked", exitLocked,
		"stop that process or wait for it; --lock-timeout 1m waits longer"}},
	{storage.ErrRefused, outcome{"refused", exitFailure, ""}},
	{storage.ErrCorrupted, outcome{"corrupted", exitDamage,
		"'mediabolt verify' lists all damage; putting the same bytes again heals a file that is missing or too short"}},
	{storage.ErrHeld, outcome{"held", exitHeld, "'mediabolt hold ls' tells why and since when; 'mediabolt hold rm' ends a hold"}},
	{storage.ErrNotFound, outcome{"not_found", exitNotFound, "'mediabolt ls' lists what is there"}},
	{storage.ErrInvalidRef, outcome{"invalid_id", exitFailure,
		"an ID is what 'mediabolt put' printed, whole; 'mediabolt ls' lists them"}},
	{storage.ErrInvalidQuery, outcome{"invalid_query", exitFailure, "see 'mediabolt ls --help'"}},
	{storage.ErrInvalidConfig, outcome{"invalid_config", exitFailure, ""}},
	{storage.ErrInvalidPolicy, outcome{"invalid_policy", exitFailure, "see 'mediabolt retain --help'"}},
	{storage.ErrConflict, outcome{"conflict", exitFailure, ""}},
	{storage.ErrInvalidHold, outcome{"invalid_hold", exitFailure, "see 'mediabolt hold --help'"}},
	{storage.ErrTooLarge, outcome{"too_large", exitFailure, ""}},
	{storage.ErrInvalidMedia, outcome{"invalid_media", exitFailure, ""}},
	{storage.ErrVersion, outcome{"unknown_version", exitFailure, ""}},
	{storage.ErrDiskSpace, outcome{"disk_space", exitFailure, "make room there and try again; 'mediabolt rm' and 'mediabolt expire' work on a full disk too"}},
	{syscall.EROFS, outcome{"permission", exitFailure, "the filesystem is mounted read-only, as some are by themselves after an error of the disk: see 'dmesg', and 'mediabolt doctor'"}},
	{storage.ErrPermission, outcome{"permission", exitFailure, "check the owner and the modes of the directories on the way, or run it as the owner; 'mediabolt doctor' looks at them"}},
	{storage.ErrIO, outcome{"io", exitFailure, ""}},
	{fs.ErrPermission, outcome{"permission", exitFailure, ""}},
	{fs.ErrExist, outcome{"exists", exitFailure, ""}},
	{fs.ErrNotExist, outcome{"no_such_file", exitFailure, ""}},
}

// outcomeOf is the outcome of an error.
func outcomeOf(err error) outcome {
	if b := new(batchError); errors.As(err, &b) {
		return b.outcome
	}
	out := outcome{code: "failed", exit: exitFailure}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			out = o.outcome
			break
		}
	}
	if j := new(engine.JournalError); errors.As(err, &j) {
		out.hint = "copy " + filepath.Base(j.Path) + " from the directory " + blobs.ControlDir + " of a backup to " + j.Path + ", or move it away and lose what it says"
	}
	if h := new(hintedError); errors.As(err, &h) {
		out.hint = h.hint
	}
	return out
}

// errUsage marks an error of the command line.
var errUsage = errors.New("usage")

// usageError is an error of the command line. Its text is the message alone.
type usageError struct{ msg string }

func (e *usageError) Error() string        { return e.msg }
func (e *usageError) Is(target error) bool { return target == errUsage }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// interruptedError is the end of a command by a signal. Its text is the message
// alone.
type interruptedError struct{ msg string }

func (e *interruptedError) Error() string { return e.msg }
func (e *interruptedError) Unwrap() error { return context.Canceled }

// hintedError is an error with a hint of its own.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

func hinted(err error, hint string) error { return &hintedError{err, hint} }

// suggestion is what cobra puts before the commands that a slip may have meant.
const suggestion = "\n\nDid you mean this?\n\t"

// finish reports the error that ended cmd and returns the exit code.
func (a *app) finish(cmd *cobra.Command, args []string, err error) int {
	if !a.running {
		err = &usageError{strings.Replace(err.Error(), suggestion, "; did you mean ", 1)}
		// The error may have come before the flag was read.
		a.asJSON = a.asJSON || slices.Contains(args, "--json")
	}
	if errors.Is(err, context.Canceled) && !errors.As(err, new(*interruptedError)) {
		stopped := error(&interruptedError{"interrupted"})
		if h := new(hintedError); errors.As(err, &h) {
			stopped = hinted(stopped, h.hint)
		}
		err = stopped
	}
	if errors.Is(err, errUsage) {
		err = hinted(err, "see '"+cmd.CommandPath()+" --help'")
	}
	a.complain(err)
	return outcomeOf(err).exit
}

// errorRecord is an error in JSON.
type errorRecord struct {
	Error    string `json:"error"`
	Code     string `json:"code"`
	ExitCode int    `json:"exit_code"`
	Item     string `json:"item,omitempty"` // the file or ID that it is about
	Hint     string `json:"hint,omitempty"`
}

// complain prints an error, on one line, and what to do next.
func (a *app) complain(err error) {
	out := outcomeOf(err)
	msg := oneLine(err.Error())
	if a.asJSON {
		record := errorRecord{Error: msg, Code: out.code, ExitCode: out.exit, Hint: out.hint}
		if item := new(itemError); errors.As(err, &item) {
			record.Item = item.item
		}
		_ = writeJSON(a.stderr, &record) // there is nowhere left to say it
		return
	}
	_, _ = fmt.Fprintf(a.stderr, "mediabolt: %s\n", plain(msg))
	if out.hint != "" {
		_, _ = fmt.Fprintf(a.stderr, "  %s\n", out.hint)
	}
}

// noteRecord is a note in JSON.
type noteRecord struct {
	Note string `json:"note"`
}

// note tells something that is no error. A note that cannot be written is lost.
func (a *app) note(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if a.asJSON {
		_ = writeJSON(a.stderr, noteRecord{msg})
		return
	}
	_, _ = fmt.Fprintf(a.stderr, "mediabolt: %s\n", plain(msg))
}

// oneLine is s with its lines, trimmed, on one.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
