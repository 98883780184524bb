// Package faulty is a filesystem of which chosen calls fail. Below it is a strict
// one (package strict), so that a fault can be followed by a cut: what a failed
// sync was about is then never durable, although it can be read and the next
// sync succeeds.
package faulty

import (
	"encoding/json"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mediabolt/mediabolt/certify/strict"
)

// Fault is what fails, and how.
type Fault struct {
	// At is which call fails, from 1 on, counted from when this is set.
	At int
	// Errno is what it answers.
	Errno syscall.Errno
	// Short counts only writes, and makes one take half of its bytes first: the
	// next one fails.
	Short bool
	// Changes counts only calls that may change something or make it durable.
	Changes bool
	// Sticky makes all later calls fail too; with Changes only those.
	Sticky bool
	// Durable leaves durable what a sync that fails was about.
	Durable bool
}

// Told is what a filesystem tells of its faults.
type Told struct {
	Calls int    // counted since the fault was set
	Hit   string // name of the first call that failed, or ""
}

// Extended attributes of the root directory.
const (
	faultAttr = "user.mediabolt.fault" // written: a Fault in JSON
	toldAttr  = "user.mediabolt.told"  // read: Told in JSON
)

// filesystem is a strict server in front of which calls fail.
type filesystem struct {
	*strict.Server

	mu    sync.Mutex // guards the rest
	fault Fault
	told  Told
	rest  bool // of a short write: the next one fails
}

// call counts a call, and answers what it is to answer in place of the server.
func (f *filesystem) call(name string, changes bool) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault.Short || f.fault.Changes && !changes {
		return fuse.OK
	}
	f.told.Calls++
	n := f.told.Calls
	if f.fault.At == 0 || n < f.fault.At || n > f.fault.At && !f.fault.Sticky {
		return fuse.OK
	}
	f.hit(name)
	return fuse.Status(f.fault.Errno)
}

// hit notes the first call that fails. The caller holds mu.
func (f *filesystem) hit(name string) {
	if f.told.Hit == "" {
		f.told.Hit = name
	}
}

// write is how many of a write's bytes to take, or what to answer.
func (f *filesystem) write(size int) (int, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told.Calls++
	switch at := f.fault.At; {
	case f.rest:
		f.rest = f.fault.Sticky
		return 0, fuse.Status(f.fault.Errno)
	case at != 0 && f.told.Calls >= at && f.told.Hit == "":
		f.hit("short write")
		f.rest = true
		return max(1, size/2), fuse.OK
	}
	return size, fuse.OK
}

func (f *filesystem) Lookup(c <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if s := f.call("lookup", false); s != fuse.OK {
		return s
	}
	return f.Server.Lookup(c, h, name, out)
}

func (f *filesystem) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s := f.call("getattr", false); s != fuse.OK {
		return s
	}
	return f.Server.GetAttr(c, in, out)
}

func (f *filesystem) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s := f.call("setattr", true); s != fuse.OK {
		return s
	}
	return f.Server.SetAttr(c, in, out)
}

func (f *filesystem) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if s := f.call("mkdir", true); s != fuse.OK {
		return s
	}
	return f.Server.Mkdir(c, in, name, out)
}

func (f *filesystem) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if s := f.call("create", true); s != fuse.OK {
		return s
	}
	return f.Server.Create(c, in, name, out)
}

func (f *filesystem) Link(c <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if s := f.call("link", true); s != fuse.OK {
		return s
	}
	return f.Server.Link(c, in, name, out)
}

func (f *filesystem) Unlink(c <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if s := f.call("unlink", true); s != fuse.OK {
		return s
	}
	return f.Server.Unlink(c, h, name)
}

func (f *filesystem) Rmdir(c <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if s := f.call("rmdir", true); s != fuse.OK {
		return s
	}
	return f.Server.Rmdir(c, h, name)
}

func (f *filesystem) Rename(c <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if s := f.call("rename", true); s != fuse.OK {
		return s
	}
	return f.Server.Rename(c, in, oldName, newName)
}

func (f *filesystem) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s := f.call("open", false); s != fuse.OK {
		return s
	}
	return f.Server.Open(c, in, out)
}

func (f *filesystem) Read(c <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if s := f.call("read", false); s != fuse.OK {
		return nil, s
	}
	return f.Server.Read(c, in, buf)
}

func (f *filesystem) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	short := f.fault.Short
	f.mu.Unlock()
	if short {
		n, s := f.write(len(data))
		if s != fuse.OK {
			return 0, s
		}
		data = data[:n]
	} else if s := f.call("write", true); s != fuse.OK {
		return 0, s
	}
	return f.Server.Write(c, in, data)
}

func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return f.call("flush", false) }

func (f *filesystem) Fsync(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := f.call("fsync", true); s != fuse.OK {
		f.fail(in.NodeId, func() { f.Server.Fsync(c, in) })
		return s
	}
	return f.Server.Fsync(c, in)
}

func (f *filesystem) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := f.call("fsyncdir", true); s != fuse.OK {
		f.fail(in.NodeId, func() { f.Server.FsyncDir(c, in) })
		return s
	}
	return f.Server.FsyncDir(c, in)
}

// fail is what a sync that fails does.
func (f *filesystem) fail(node uint64, sync func()) {
	f.mu.Lock()
	durable := f.fault.Durable
	f.mu.Unlock()
	if durable {
		sync()
	} else {
		f.Lose(node)
	}
}

func (f *filesystem) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s := f.call("opendir", false); s != fuse.OK {
		return s
	}
	return f.Server.OpenDir(c, in, out)
}

func (f *filesystem) ReadDir(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if s := f.call("readdir", false); s != fuse.OK {
		return s
	}
	return f.Server.ReadDir(c, in, out)
}

func (f *filesystem) SetXAttr(c <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	switch attr {
	case faultAttr:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.fault, f.told, f.rest = Fault{}, Told{}, false
		if err := json.Unmarshal(data, &f.fault); err != nil {
			return fuse.EINVAL
		}
		return fuse.OK
	case strict.SyncAttr:
		if s := f.call("syncfs", true); s != fuse.OK {
			f.fail(0, func() { f.Server.SetXAttr(c, in, attr, data) })
			return s
		}
	}
	return f.Server.SetXAttr(c, in, attr, data)
}

func (f *filesystem) GetXAttr(c <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if attr != toldAttr {
		return f.Server.GetXAttr(c, h, attr, dest)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := json.Marshal(&f.told)
	if err != nil {
		return 0, fuse.EIO
	}
	if len(text) > len(dest) {
		return uint32(len(text)), fuse.ERANGE
	}
	return uint32(copy(dest, text)), fuse.OK
}
