package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// What a call can run into at any time.
var (
	// ErrNotFound: no live reference has that ID, or (then together with
	// ErrCorrupted) the file of a live reference vanished. Is also
	// fs.ErrNotExist.
	ErrNotFound error = &sentinel{"media not found", fs.ErrNotExist}

	// ErrPermission: the operating system refused access (EACCES, EPERM,
	// EROFS). Is also fs.ErrPermission.
	ErrPermission error = &sentinel{"permission denied", fs.ErrPermission}

	// ErrDiskSpace: the disk, the quota or a configured limit is full (ENOSPC,
	// EDQUOT, or a limit of the store).
	ErrDiskSpace error = &sentinel{"insufficient disk space", nil}

	// ErrCorrupted: the bytes, the index or both are not what was stored.
	ErrCorrupted error = &sentinel{"media file corrupted", nil}

	// ErrIO: the disk or the filesystem failed in another way (EIO and the
	// like).
	ErrIO error = &sentinel{"input/output failure", nil}

	// ErrHeld: a hold keeps what was to be deleted; the error names it.
	ErrHeld error = &sentinel{"media is held", nil}

	// ErrInDoubt: a change failed so late that it may have happened all the
	// same. The store accepts no further change; reopening it tells.
	ErrInDoubt error = &sentinel{"outcome unknown until the store is reopened", nil}
)

// What a caller passed that cannot be used.
var (
	// ErrInvalidRef: a reference that no Store can have returned.
	ErrInvalidRef error = &sentinel{"invalid storage reference", nil}

	// ErrInvalidMedia: content or metadata that cannot be stored as it is.
	ErrInvalidMedia error = &sentinel{"invalid media", nil}

	// ErrTooLarge: content over the configured MaxFileSize.
	ErrTooLarge error = &sentinel{"media too large", nil}

	// ErrInvalidQuery: a query that cannot be asked, as one with a cursor of
	// another order.
	ErrInvalidQuery error = &sentinel{"invalid query", nil}

	// ErrConflict: something else is there already, under the same ID or in the
	// same directory. Is also fs.ErrExist.
	ErrConflict error = &sentinel{"something else is there", fs.ErrExist}

	// ErrInvalidHold: a hold whose name, target or texts cannot be kept.
	ErrInvalidHold error = &sentinel{"invalid hold", nil}

	// ErrInvalidPolicy: a retention policy that has no known form, or ends at a
	// time that cannot be kept.
	ErrInvalidPolicy error = &sentinel{"invalid retention policy", nil}

	// ErrInvalidConfig: a configuration that no store can run with.
	ErrInvalidConfig error = &sentinel{"invalid configuration", nil}
)

// ErrRefused: a repair that might destroy what is good, because the index or the
// look at the tree cannot be relied upon, or because it would touch too much.
var ErrRefused error = &sentinel{"refused for safety", nil}

// What opening a store, or using a closed one, can run into.
var (
	// ErrLocked: another process has the store open.
	ErrLocked error = &sentinel{"store is locked", nil}

	// ErrClosed: the store was closed. Is also fs.ErrClosed.
	ErrClosed error = &sentinel{"store is closed", fs.ErrClosed}

	// ErrVersion: the store was written in a format this program does not
	// know.
	ErrVersion error = &sentinel{"unknown format version", nil}

	// ErrNoStore: the directory holds no store and creating one was not
	// allowed. Is also fs.ErrNotExist.
	ErrNoStore error = &sentinel{"no store here", fs.ErrNotExist}
)

// classes is in order of precedence: damage, say, comes before not found, since
// a live reference whose file vanished is both.
var classes = [...]struct {
	is    error
	class string
}{
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "deadline"},
	{ErrClosed, "closed"},
	{ErrLocked, "locked"},
	{ErrNoStore, "no_store"},
	{ErrRefused, "refused"},
	{ErrVersion, "version"},
	{ErrInDoubt, "in_doubt"},
	{ErrCorrupted, "corrupted"},
	{ErrHeld, "held"},
	{ErrNotFound, "not_found"},
	{ErrInvalidRef, "invalid_ref"},
	{ErrInvalidQuery, "invalid_query"},
	{ErrInvalidHold, "invalid_hold"},
	{ErrInvalidPolicy, "invalid_policy"},
	{ErrTooLarge, "too_large"},
	{ErrInvalidMedia, "invalid_media"},
	{ErrConflict, "conflict"},
	{ErrInvalidConfig, "invalid_config"},
	{ErrDiskSpace, "disk_space"},
	{ErrPermission, "permission"},
	{ErrIO, "io"},
}

// Class is a short name of what kind of error err is, after its sentinel or
// context error, for metrics and logs: one of a dozen and some that are stable,
// such as "not_found", or "other"; empty for nil.
func Class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c.class
		}
	}
	return "other"
}

// sentinel is an error of a fixed message that may also be one of io/fs's.
type sentinel struct {
	msg string
	is  error
}

func (e *sentinel) Error() string { return e.msg }
func (e *sentinel) Unwrap() error { return e.is }

// Classify wraps an error of the operating system with the sentinel that it
// means: ErrDiskSpace, ErrPermission (also for a path that os.Root does not
// follow), or ErrIO for every other errno. An error
// that wraps a sentinel already, a context's error, and errors that name no
// errno come back as they are.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if s := new(sentinel); errors.As(err, &s) {
		return err
	}
	switch {
	case isDiskFull(err):
		return fmt.Errorf("%w: %w", ErrDiskSpace, err)
	case isDenied(err):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case isErrno(err):
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	// What is left of errors of paths is os.Root's refusal to leave the
	// directory, which it does not export.
	var refused *fs.PathError
	var unlinked *os.LinkError
	if (errors.As(err, &refused) || errors.As(err, &unlinked)) && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}
