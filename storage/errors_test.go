package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// sentinels is every one with its message, which callers may have written down.
var sentinels = map[error]string{
	storage.ErrNotFound:      "media not found",
	storage.ErrPermission:    "permission denied",
	storage.ErrDiskSpace:     "insufficient disk space",
	storage.ErrCorrupted:     "media file corrupted",
	storage.ErrInvalidRef:    "invalid storage reference",
	storage.ErrIO:            "input/output failure",
	storage.ErrInDoubt:       "outcome unknown until the store is reopened",
	storage.ErrInvalidMedia:  "invalid media",
	storage.ErrTooLarge:      "media too large",
	storage.ErrInvalidQuery:  "invalid query",
	storage.ErrConflict:      "something else is there",
	storage.ErrInvalidHold:   "invalid hold",
	storage.ErrHeld:          "media is held",
	storage.ErrInvalidPolicy: "invalid retention policy",
	storage.ErrInvalidConfig: "invalid configuration",
	storage.ErrLocked:        "store is locked",
	storage.ErrClosed:        "store is closed",
	storage.ErrVersion:       "unknown format version",
	storage.ErrNoStore:       "no store here",
	storage.ErrRefused:       "refused for safety",
}

func TestSentinels(t *testing.T) {
	also := map[error]error{
		storage.ErrNotFound: fs.ErrNotExist, storage.ErrNoStore: fs.ErrNotExist,
		storage.ErrPermission: fs.ErrPermission, storage.ErrClosed: fs.ErrClosed,
		storage.ErrConflict: fs.ErrExist,
	}
	for err, message := range sentinels {
		require.EqualError(t, err, message)
		wrapped := fmt.Errorf("store: %w", fmt.Errorf("%w: blob", err))
		for other := range sentinels {
			require.Equal(t, err == other, errors.Is(wrapped, other), "%v is %v", err, other)
		}
		for _, host := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrClosed, fs.ErrExist} {
			require.Equal(t, also[err] == host, errors.Is(wrapped, host), "%v is %v", err, host)
		}
	}
}

func TestClassify(t *testing.T) {
	path := func(errno syscall.Errno) error { return &fs.PathError{Op: "write", Path: "p", Err: errno} }
	for errno, want := range map[syscall.Errno]error{
		syscall.ENOSPC:       storage.ErrDiskSpace,
		syscall.EDQUOT:       storage.ErrDiskSpace,
		syscall.EACCES:       storage.ErrPermission,
		syscall.EPERM:        storage.ErrPermission,
		syscall.EROFS:        storage.ErrPermission,
		syscall.EIO:          storage.ErrIO,
		syscall.ENOENT:       storage.ErrIO,
		syscall.EEXIST:       storage.ErrIO,
		syscall.EMFILE:       storage.ErrIO,
		syscall.ELOOP:        storage.ErrIO,
		syscall.ENOTDIR:      storage.ErrIO,
		syscall.ENAMETOOLONG: storage.ErrIO,
	} {
		for _, err := range []error{errno, path(errno), fmt.Errorf("publish: %w", path(errno)), &os.LinkError{Op: "link", Err: errno}, errors.Join(io.ErrUnexpectedEOF, errno)} {
			got := storage.Classify(err)
			require.ErrorIs(t, got, want, "%v", err)
			require.ErrorIs(t, got, errno)
			require.ErrorContains(t, got, err.Error())
			for other := range sentinels {
				require.Equal(t, other == want, errors.Is(got, other), "%v is %v", got, other)
			}
			require.Equal(t, got, storage.Classify(got), "a second time changes nothing")
		}
	}
}

func TestClassifyLeavesAlone(t *testing.T) {
	require.NoError(t, storage.Classify(nil))
	for _, err := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, errors.New("what else"),
		fs.ErrNotExist, fs.ErrExist, fs.ErrClosed, &fs.PathError{Op: "read", Path: "p", Err: fs.ErrClosed},
	} {
		require.Equal(t, err, storage.Classify(err), "%v", err)
	}
	for err := range sentinels {
		require.Equal(t, err, storage.Classify(err))
		mixed := fmt.Errorf("%w: %w", err, syscall.EIO)
		require.Equal(t, mixed, storage.Classify(mixed), "who wrapped it knew better")
	}
}

// Errors as the operating system gives them.
func TestClassifyReal(t *testing.T) {
	dir := t.TempDir()
	_, err := os.Open(filepath.Join(dir, "missing"))
	require.ErrorIs(t, storage.Classify(err), storage.ErrIO)
	require.ErrorIs(t, storage.Classify(err), fs.ErrNotExist)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = os.Open(filepath.Join(file, "below"))
	require.ErrorIs(t, storage.Classify(err), storage.ErrIO)

	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	_, err = root.Open("../outside")
	require.ErrorIs(t, storage.Classify(err), storage.ErrPermission, "a path that leads out")
	require.ErrorIs(t, storage.Classify(root.Link("file", "../outside")), storage.ErrPermission)
	require.ErrorIs(t, storage.Classify(root.Remove("../outside")), storage.ErrPermission)
}

func TestClass(t *testing.T) {
	for err, want := range map[error]string{
		nil:                 "",
		storage.ErrNotFound: "not_found", storage.ErrDiskSpace: "disk_space", storage.ErrIO: "io",
		fmt.Errorf("%w: %w", storage.ErrCorrupted, storage.ErrNotFound):           "corrupted",
		fmt.Errorf("%w: %w", storage.ErrInvalidMedia, context.Canceled):           "canceled",
		storage.Classify(&fs.PathError{Op: "write", Path: "x", Err: syscall.EIO}): "io",
		errors.New("none of ours"): "other",
	} {
		require.Equal(t, want, storage.Class(err), "%v", err)
	}
}

// Every sentinel has a class of its own.
func TestEverySentinelHasAClass(t *testing.T) {
	seen := map[string]error{}
	for err := range sentinels {
		class := storage.Class(fmt.Errorf("context: %w", err))
		require.NotContains(t, []string{"", "other"}, class, "%v", err)
		require.NotContains(t, seen, class, "%v and %v", err, seen[class])
		seen[class] = err
	}
}
