package strict

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
)

// Kind is what an event does.
type Kind uint8

// Kinds of events.
const (
	Create  Kind = iota + 1 // Node becomes a file, Name in Dir leads to it
	Mkdir                   // Node becomes a directory, Name in Dir leads to it
	Link                    // Name in Dir leads to Node, besides its other names
	Unlink                  // Name in Dir leads nowhere
	Rename                  // Name in Dir leads nowhere, NewName in Dir to Node, at once
	Write                   // Data is in Node at At
	Resize                  // Node is At bytes long
	Sync                    // what Node was is durable: a file's bytes, a directory's names
	SyncAll                 // everything is durable
)

var kindNames = [...]string{
	Create: "create", Mkdir: "mkdir", Link: "link", Unlink: "unlink", Rename: "rename",
	Write: "write", Resize: "resize", Sync: "sync", SyncAll: "sync all",
}

func (k Kind) String() string { return kindNames[k] }

// Event is one step of a filesystem's life. A rename between two directories is
// two of them, Link and Unlink.
type Event struct {
	Kind    Kind
	Node    uint64
	Dir     uint64
	Name    string
	NewName string
	Mode    uint32
	At      int64 // in bytes
	Data    []byte
}

func (e *Event) String() string {
	switch e.Kind {
	case Write:
		return fmt.Sprintf("write %d: %d bytes at %d", e.Node, len(e.Data), e.At)
	case Resize:
		return fmt.Sprintf("resize %d: %d bytes", e.Node, e.At)
	case Sync:
		return fmt.Sprintf("sync %d", e.Node)
	case SyncAll:
		return "sync all"
	case Rename:
		return fmt.Sprintf("rename %d: %d/%s to %s", e.Node, e.Dir, e.Name, e.NewName)
	}
	return fmt.Sprintf("%s %d: %d/%s", e.Kind, e.Node, e.Dir, e.Name)
}

// recorder writes events to a file, in the format of encoding/gob.
type recorder struct {
	file *os.File
	buf  *bufio.Writer
	enc  *gob.Encoder
	err  error // the first; what follows is lost too
}

func newRecorder(name string) (*recorder, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	buf := bufio.NewWriter(f)
	return &recorder{file: f, buf: buf, enc: gob.NewEncoder(buf)}, nil
}

func (r *recorder) add(e *Event) {
	if r.err == nil {
		r.err = r.enc.Encode(e)
	}
}

func (r *recorder) close() error { return errors.Join(r.err, r.buf.Flush(), r.file.Close()) }

// ReadEvents reads the recording of a mount that was closed.
func ReadEvents(name string) (events []Event, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	dec := gob.NewDecoder(bufio.NewReader(f))
	for {
		var e Event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("recording %s: event %d: %w", name, len(events)+1, err)
		}
		events = append(events, e)
	}
}
