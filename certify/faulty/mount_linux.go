package faulty

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/served"
	"github.com/mediabolt/mediabolt/certify/strict"
)

const kind = "faulty"

// Main serves a mount where this process was started for that, and does not
// return then. A program that calls New calls it first.
func Main() {
	served.Main(kind, func(text json.RawMessage) (served.Filesystem, error) {
		s, err := strict.NewServer(text)
		if err != nil {
			return nil, err
		}
		return &filesystem{Server: s}, nil
	})
}

// Mount is a faulty filesystem in use. Its SyncFS is one of the calls that can
// fail.
type Mount struct{ *strict.Mount }

// New mounts a faulty filesystem, without a fault, on a directory. It begins with a
// copy of the directory from, all of it durable, or empty where from is "". The
// kernel keeps nothing that it could answer by itself. Needs root.
func New(dir, from string) (*Mount, error) {
	m, err := served.New(kind, dir, &strict.Spec{From: from, Record: os.DevNull, Uncached: true})
	if err != nil {
		return nil, err
	}
	s, err := strict.Use(m)
	return &Mount{s}, err
}

// Set sets the fault, and counts from here. An empty one heals.
func (m *Mount) Set(f Fault) error {
	text, err := json.Marshal(&f)
	if err == nil {
		err = unix.Fsetxattr(int(m.Root.Fd()), faultAttr, text, 0)
	}
	if err != nil {
		return fmt.Errorf("set a fault of %s: %w", m.Dir, err)
	}
	return nil
}

// toldSize is longer than a Told in JSON, in bytes.
const toldSize = 256

// Told tells what came of the fault so far.
func (m *Mount) Told() (t Told, err error) {
	text := make([]byte, toldSize)
	n, err := unix.Fgetxattr(int(m.Root.Fd()), toldAttr, text)
	if err == nil {
		err = json.Unmarshal(text[:n], &t)
	}
	if err != nil {
		return t, fmt.Errorf("faults of %s: %w", m.Dir, err)
	}
	return t, nil
}
