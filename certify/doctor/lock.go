package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Lock is who has the store open.
type Lock struct {
	Held    bool     `json:"held"`
	Known   bool     `json:"known"`   // whether it is held could be told
	Holders []Holder `json:"holders"` // as far as they can be told
}

// Holder is a process that has the lock.
type Holder struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// lock tells who has the store. A lock belongs to a process and goes with it, so none
// is ever left over: one that is held has a process that lives.
func (r *Report) lock(context.Context) {
	const topic = "lock"
	r.Lock.Holders = []Holder{}
	f, err := os.Open(r.control(indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	} else if err != nil {
		r.add(topic, Warning, "", "cannot tell who has the store open: %v", err)
		return
	}
	defer f.Close()
	if r.Lock.Held, err = isLocked(f); errors.Is(err, errors.ErrUnsupported) {
		r.add(topic, Note, "stop what may have the store open before you change anything by hand", "this system does not tell whether the store is open")
		return
	} else if err != nil {
		r.add(topic, Warning, "", "cannot tell who has the store open: %v", err)
		return
	}
	r.Lock.Known = true
	if !r.Lock.Held {
		r.add(topic, Fine, "", "nobody has the store open")
		return
	}
	r.Lock.Holders = append(r.Lock.Holders, holders(f)...)
	var names []string
	for _, h := range r.Lock.Holders {
		names = append(names, fmt.Sprintf("process %d (%s)", h.PID, h.Command))
	}
	if names == nil {
		r.add(topic, Note, "look for it on the host, in other containers, or on the machine that serves the filesystem", "a process that cannot be seen from here has the store open")
		return
	}
	r.add(topic, Note, "one process at a time: stop it, or wait with --lock-timeout; a lock goes with its process, there is no file to remove",
		"the store is open in %s", strings.Join(names, ", "))
}
