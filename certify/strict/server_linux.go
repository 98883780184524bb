package strict

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Extended attributes of the root directory by which a user of the mount talks
// to its server, in order with the other calls.
const (
	clockAttr = "user.mediabolt.clock" // read: how many events there have been
	cutAttr   = "user.mediabolt.cut"   // written: a cutOrder in JSON
	// SyncAttr is written for a sync of the filesystem.
	SyncAttr = "user.mediabolt.sync"
)

// cutOrder has what survives a cut written to a directory.
type cutOrder struct {
	Dir    string
	Choice Choice
}

// Server serves a model to the kernel and records what happens to it.
type Server struct {
	fuse.RawFileSystem

	mu     sync.Mutex // guards the rest
	model  *Model
	record *recorder
	events uint64
	lists  map[uint64][]fuse.DirEntry // of open directories, by handle
	handle uint64

	cached  uint64 // how long the kernel may keep names and attributes, in seconds
	opening uint32 // flags of every opening
}

// Close ends the recording.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.close()
}

// happen applies and records events. The caller holds mu.
func (s *Server) happen(events ...*Event) {
	for _, e := range events {
		s.model.Apply(e)
		s.record.add(e)
		s.events++
	}
}

// find is what a name in a directory leads to. The caller holds mu.
func (s *Server) find(dir uint64, name string) (*node, fuse.Status) {
	number, there := s.model.nodes[dir].names[name]
	if !there {
		return nil, fuse.ENOENT
	}
	return s.model.nodes[number], fuse.OK
}

func (s *Server) attr(n *node, out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.number, Mode: n.mode | syscall.S_IFREG, Nlink: s.links(n), Blksize: blockSize}
	out.Owner = fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if n.dir {
		out.Mode = n.mode | syscall.S_IFDIR
		return
	}
	out.Size = uint64(n.now.size)
	out.Blocks = uint64(len(n.now.blocks)) * blockSize / sectorSize
}

func (s *Server) links(n *node) (links uint32) {
	if n.dir {
		return 2
	}
	for _, d := range s.model.nodes {
		for _, number := range d.names {
			if number == n.number {
				links++
			}
		}
	}
	return links
}

func (s *Server) entry(n *node, out *fuse.EntryOut) {
	*out = fuse.EntryOut{NodeId: n.number, Generation: 1, EntryValid: s.cached, AttrValid: s.cached}
	s.attr(n, &out.Attr)
}

func (s *Server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, status := s.find(h.NodeId, name)
	if status == fuse.OK {
		s.entry(n, out)
	}
	return status
}

func (s *Server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.AttrValid = s.cached
	s.attr(s.model.nodes[in.NodeId], &out.Attr)
	return fuse.OK
}

func (s *Server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.model.nodes[in.NodeId]
	if mode, set := in.GetMode(); set {
		n.mode = mode & 0o7777
	}
	if size, set := in.GetSize(); set {
		s.happen(&Event{Kind: Resize, Node: n.number, At: int64(size)})
	}
	out.AttrValid = s.cached
	s.attr(n, &out.Attr)
	return fuse.OK
}

// newNode makes a file or a directory. The caller holds mu.
func (s *Server) newNode(kind Kind, dir uint64, name string, mode uint32, out *fuse.EntryOut) fuse.Status {
	if _, status := s.find(dir, name); status == fuse.OK {
		return fuse.Status(syscall.EEXIST)
	}
	e := &Event{Kind: kind, Node: s.model.last + 1, Dir: dir, Name: name, Mode: mode & 0o7777}
	s.happen(e)
	s.entry(s.model.nodes[e.Node], out)
	return fuse.OK
}

func (s *Server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newNode(Mkdir, in.NodeId, name, in.Mode, out)
}

func (s *Server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.OpenFlags = s.opening
	return s.newNode(Create, in.NodeId, name, in.Mode, &out.EntryOut)
}

func (s *Server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, status := s.find(in.NodeId, name); status == fuse.OK {
		return fuse.Status(syscall.EEXIST)
	}
	s.happen(&Event{Kind: Link, Node: in.Oldnodeid, Dir: in.NodeId, Name: name})
	s.entry(s.model.nodes[in.Oldnodeid], out)
	return fuse.OK
}

func (s *Server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, status := s.find(h.NodeId, name)
	if status == fuse.OK {
		s.happen(&Event{Kind: Unlink, Node: n.number, Dir: h.NodeId, Name: name})
	}
	return status
}

func (s *Server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, status := s.find(h.NodeId, name)
	switch {
	case status != fuse.OK:
		return status
	case len(n.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	s.happen(&Event{Kind: Unlink, Node: n.number, Dir: h.NodeId, Name: name})
	return fuse.OK
}

func (s *Server) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	n, status := s.find(in.NodeId, oldName)
	if status != fuse.OK {
		return status
	}
	if there, status := s.find(in.Newdir, newName); status == fuse.OK && len(there.names) > 0 {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	if in.NodeId == in.Newdir {
		s.happen(&Event{Kind: Rename, Node: n.number, Dir: in.NodeId, Name: oldName, NewName: newName})
		return fuse.OK
	}
	s.happen(&Event{Kind: Link, Node: n.number, Dir: in.Newdir, Name: newName},
		&Event{Kind: Unlink, Node: n.number, Dir: in.NodeId, Name: oldName})
	return fuse.OK
}

func (s *Server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Flags&syscall.O_TRUNC != 0 {
		s.happen(&Event{Kind: Resize, Node: in.NodeId})
	}
	out.OpenFlags = s.opening
	return fuse.OK
}

func (s *Server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.model.nodes[in.NodeId].now.read(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (s *Server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.happen(&Event{Kind: Write, Node: in.NodeId, At: int64(in.Offset), Data: slices.Clone(data)})
	return uint32(len(data)), fuse.OK
}

func (s *Server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.happen(&Event{Kind: Sync, Node: in.NodeId})
	return fuse.OK
}

func (s *Server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.Fsync(cancel, in)
}

func (s *Server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []fuse.DirEntry
	names := s.model.nodes[in.NodeId].names
	for i, name := range slices.Sorted(maps.Keys(names)) {
		n := s.model.nodes[names[name]]
		mode := uint32(syscall.S_IFREG)
		if n.dir {
			mode = syscall.S_IFDIR
		}
		list = append(list, fuse.DirEntry{Name: name, Ino: n.number, Mode: mode, Off: uint64(i + 1)})
	}
	s.handle++
	s.lists[s.handle] = list
	out.Fh = s.handle
	return fuse.OK
}

func (s *Server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.lists[in.Fh]
	for _, e := range list[min(in.Offset, uint64(len(list))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (s *Server) ReleaseDir(in *fuse.ReleaseIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lists, in.Fh)
}

// statfsBlocks is a filesystem's size that no run fills.
const statfsBlocks = 1 << 20

func (s *Server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Blocks, out.Bfree, out.Bavail = statfsBlocks, statfsBlocks, statfsBlocks
	out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, 255
	return fuse.OK
}

func (s *Server) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if attr != clockAttr {
		return 0, fuse.ENOATTR
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strconv.AppendUint(nil, s.events, 10)
	if len(text) > len(dest) {
		return uint32(len(text)), fuse.ERANGE
	}
	return uint32(copy(dest, text)), fuse.OK
}

func (s *Server) SetXAttr(_ <-chan struct{}, _ *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch attr {
	case SyncAttr:
		s.happen(&Event{Kind: SyncAll})
		return fuse.OK
	case cutAttr:
		var o cutOrder
		if err := json.Unmarshal(data, &o); err != nil {
			return fuse.EINVAL
		}
		return fuse.ToStatus(s.model.Survive(o.Choice).Write(o.Dir))
	}
	return fuse.Status(syscall.ENOTSUP)
}

// Lose is a sync of a node that failed, or of all where the number is 0: the
// bytes that it was about will never be durable, although they can be read, and
// the next sync succeeds. That is what kernels do after a failed write to the
// disk.
func (s *Server) Lose(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.model.dirty {
		if number == 0 || number == n.number {
			s.model.lose(n)
		}
	}
}

// Spec is what a serving process is told.
type Spec struct {
	From     string // a directory to begin with, or ""
	Record   string // where events go
	Uncached bool   // every call is to arrive, also those that the kernel could answer
}

// keepForever is how long the kernel may keep names and attributes, in seconds,
// since all changes come through it.
const keepForever = 3600

// NewServer makes the server that a process was told to be, by a Spec.
func NewServer(text json.RawMessage) (*Server, error) {
	var p Spec
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	s := &Server{RawFileSystem: fuse.NewDefaultRawFileSystem(), model: NewModel(), lists: map[uint64][]fuse.DirEntry{}}
	if !p.Uncached {
		s.cached, s.opening = keepForever, fuse.FOPEN_KEEP_CACHE
	}
	var err error
	if p.From != "" {
		if s.model, err = Read(p.From); err != nil {
			return nil, err
		}
	}
	if s.record, err = newRecorder(p.Record); err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	return s, nil
}
