package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/served"
)

const kind = "strict"

// Main serves a mount where this process was started for that, and does not
// return then. A program that calls New calls it first.
func Main() {
	served.Main(kind, func(text json.RawMessage) (served.Filesystem, error) { return NewServer(text) })
}

// Mount is a strict filesystem in use.
type Mount struct {
	*served.Mount
	Root *os.File // the root directory, open
}

// New mounts a strict filesystem on a directory. It begins with a copy of the
// directory from, all of it durable, or empty where from is "". Its events go to
// the file record, which is whole once the mount is closed. Needs root.
func New(dir, from, record string) (*Mount, error) {
	m, err := served.New(kind, dir, &Spec{From: from, Record: record})
	if err != nil {
		return nil, err
	}
	return Use(m)
}

// Use uses what a Server serves. After an error it is unmounted.
func Use(m *served.Mount) (*Mount, error) {
	f, err := os.Open(m.Dir)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &Mount{m, f}, nil
}

// Clock is how many events there have been.
func (m *Mount) Clock() (int, error) {
	text := make([]byte, 20)
	n, err := unix.Fgetxattr(int(m.Root.Fd()), clockAttr, text)
	if err != nil {
		return 0, fmt.Errorf("clock of %s: %w", m.Dir, err)
	}
	return strconv.Atoi(string(text[:n]))
}

// SyncFS is a sync of the filesystem, which syncfs(2) is not on FUSE.
func (m *Mount) SyncFS() error {
	if err := unix.Fsetxattr(int(m.Root.Fd()), SyncAttr, nil, 0); err != nil {
		return fmt.Errorf("sync %s: %w", m.Dir, err)
	}
	return nil
}

// Cut makes a cut now, writes what survives to an empty directory of another
// filesystem, and goes on as if nothing had happened.
func (m *Mount) Cut(dir string, c Choice) error {
	text, err := json.Marshal(&cutOrder{dir, c})
	if err == nil {
		err = unix.Fsetxattr(int(m.Root.Fd()), cutAttr, text, 0)
	}
	if err != nil {
		return fmt.Errorf("cut %s: %w", m.Dir, err)
	}
	return nil
}

// Close unmounts. The recording is whole then.
func (m *Mount) Close() error {
	_ = m.Root.Close() // a directory that was only read
	return m.Mount.Close()
}
