package strict

import (
	"encoding/json"
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
	served.Main(kind, func(text json.RawMessage) (served.Filesystem, error) {
		var p spec
		if err := json.Unmarshal(text, &p); err != nil {
			return nil, err
		}
		return p.server()
	})
}

// Mount is a strict filesystem in use.
type Mount struct {
	*served.Mount
	root *os.File
}

// New mounts a strict filesystem on a directory. It begins with a copy of the
// directory from, all of it durable, or empty where from is "". Its events go to
// the file record, which is whole once the mount is closed. Needs root.
func New(dir, from, record string) (*Mount, error) {
	m, err := served.New(kind, dir, &spec{From: from, Record: record})
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		_ = m.Close() // the error is about this mount
		return nil, err
	}
	return &Mount{m, f}, nil
}

// Clock is how many events there have been.
func (m *Mount) Clock() (int, error) {
	text := make([]byte, 20)
	n, err := unix.Fgetxattr(int(m.root.Fd()), clockAttr, text)
	if err != nil {
		return 0, fmt.Errorf("clock of %s: %w", m.Dir, err)
	}
	return strconv.Atoi(string(text[:n]))
}

// SyncFS is a sync of the filesystem, which syncfs(2) is not on FUSE.
func (m *Mount) SyncFS() error {
	if err := unix.Fsetxattr(int(m.root.Fd()), syncAttr, nil, 0); err != nil {
		return fmt.Errorf("sync %s: %w", m.Dir, err)
	}
	return nil
}

// Close unmounts. The recording is whole then.
func (m *Mount) Close() error {
	_ = m.root.Close() // a directory that was only read
	return m.Mount.Close()
}
