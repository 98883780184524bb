package disk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// serverEnv holds the directory of a disk server. A program that uses this
// package and is started with it is that server, and nothing else.
//
// The server is a process of its own because a store maps its index: a thread
// that faults on a page of the map waits in the kernel for the server while the
// Go runtime takes it for running. In one process the server could then wait
// for that thread to come to a halt for the garbage collector, and both for
// ever.
const serverEnv = "MEDIABOLT_DISK_SERVER"

func init() {
	dir := os.Getenv(serverEnv)
	if dir == "" {
		return
	}
	if err := serve(dir); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "disk server:", err) // there is nobody else to tell
		os.Exit(1)
	}
	os.Exit(0)
}

// serve serves disks below dir until its standard input, a socket, ends: then
// whoever started it is gone. It leaves no mount and no loop device behind.
func serve(dir string) (err error) {
	// Whoever ends processes by their name means the one that started this.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return err
	}
	s := &server{dir: dir, root: &fs.Inode{}, disks: map[int]*served{}, bases: map[string]image{}}
	mount := filepath.Join(dir, disksDir)
	if err := os.Mkdir(mount, 0o700); err != nil {
		return err
	}
	options := &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "mediabolt-disks", Name: "mediabolt", MaxWrite: maxTransfer, DisableXAttrs: true,
	}}
	served, err := fs.Mount(mount, s.root, options)
	if err != nil {
		return fmt.Errorf("mount FUSE: %w", err)
	}
	defer func() { err = errors.Join(err, s.dropAll(), served.Unmount()) }()
	calls := rpc.NewServer()
	if err := calls.RegisterName("Disks", &service{s}); err != nil {
		return err
	}
	calls.ServeConn(conn)
	return nil
}

// disksDir and mountPrefix name the mount points below a server's directory: of
// the disks' files, and of what is on each.
const (
	disksDir    = "disks"
	mountPrefix = "mount-"
)

// maxTransfer is the longest write that FUSE hands over, in bytes: the most
// that it can.
const maxTransfer = 1 << 20

// server has the disks.
type server struct {
	dir  string
	root *fs.Inode

	mu    sync.Mutex // guards the rest
	last  int        // number of the last disk
	disks map[int]*served
	bases map[string]image // empty filesystems by name
}

// served is a disk, and where it is mounted.
type served struct {
	*device
	kind Filesystem
	loop *loop
	dir  string // empty: not mounted
}

// add serves one more disk.
func (s *server) add(kind Filesystem, d *device) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.disks[s.last] = &served{device: d, kind: kind}
	node := s.root.NewPersistentInode(context.Background(), &node{device: d}, fs.StableAttr{Mode: fuse.S_IFREG})
	s.root.AddChild(diskName(s.last), node, true)
	return s.last
}

func diskName(n int) string { return fmt.Sprintf("disk-%d.img", n) }

func (s *server) disk(n int) (*served, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.disks[n]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("disk %d: there is none", n)
}

// mount mounts a disk. An error is one of the filesystem, or of the machine.
func (s *server) mount(n int) (dir string, err error) {
	d, err := s.disk(n)
	if err != nil {
		return "", err
	}
	if d.loop, err = attach(filepath.Join(s.dir, disksDir, diskName(n))); err != nil {
		return "", err
	}
	dir = filepath.Join(s.dir, fmt.Sprint(mountPrefix, n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", errors.Join(err, d.loop.Close())
	}
	if err := unix.Mount(d.loop.name, dir, d.kind.Name, 0, d.kind.Options); err != nil {
		return "", errors.Join(fmt.Errorf("mount %s: %w", d.kind.Name, err), d.loop.Close(), os.Remove(dir))
	}
	d.dir = dir
	return dir, nil
}

// unmountWait is how long an unmount may be refused because files are open.
const unmountWait = 10 * time.Second

// unmount unmounts a disk; force is for when nobody who has files open counts.
func (s *server) unmount(n int, force bool) error {
	d, err := s.disk(n)
	if err != nil || d.dir == "" {
		return err
	}
	flags := 0
	if force {
		flags = unix.MNT_DETACH
	}
	deadline := time.Now().Add(unmountWait)
	for {
		err := unix.Unmount(d.dir, flags)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("unmount %s: %w", d.dir, err)
		}
		time.Sleep(time.Millisecond)
	}
	err = errors.Join(os.Remove(d.dir), d.loop.Close())
	if d.kind.Name == "btrfs" {
		err = errors.Join(err, forgetDevice(d.loop.name))
	}
	d.dir, d.loop = "", nil
	return err
}

// forgetDevice has btrfs forget a device: it would take the next disk with the
// same filesystem for this one.
func forgetDevice(name string) error {
	control, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }() // nothing was written
	// struct btrfs_ioctl_vol_args and BTRFS_IOC_FORGET_DEV of linux/btrfs.h.
	var args struct {
		fd   int64
		name [4088]byte
	}
	copy(args.name[:], name)
	const forget = 0x50009405
	if err := ioctl(control, forget, &args); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

// drop takes a disk out of service.
func (s *server) drop(n int, force bool) error {
	err := s.unmount(n, force)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, n)
	s.root.RmChild(diskName(n))
	return err
}

func (s *server) dropAll() error {
	var err error
	for n := 1; n <= s.last; n++ {
		if s.disks[n] != nil {
			err = errors.Join(err, s.drop(n, true))
		}
	}
	return err
}

// base is an empty filesystem, made when it is first asked for.
func (s *server) base(kind Filesystem) (image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.bases[kind.Name]; m != nil {
		return m, nil
	}
	m, err := kind.format(context.Background(), s.dir)
	if err == nil {
		s.bases[kind.Name] = m
	}
	return m, err
}

// node is the file of one disk.
type node struct {
	fs.Inode
	device *device
}

var (
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
)

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Size, out.Mode = uint64(n.device.size), fuse.S_IFREG|0o600
	return 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	if offset >= n.device.size {
		return fuse.ReadResultData(nil), 0
	}
	dest = dest[:min(int64(len(dest)), n.device.size-offset)]
	n.device.read(dest, offset)
	return fuse.ReadResultData(dest), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	if offset+int64(len(data)) > n.device.size {
		return 0, syscall.ENOSPC
	}
	n.device.write(data, offset)()
	return uint32(len(data)), 0
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.device.flush()()
	return 0
}

// Service is what a program asks of its disk server. Its methods are as net/rpc
// wants them.
type service struct{ *server }

// Where is a disk, an event of it, and what to leave of the rest.
type Where struct {
	Disk   int
	Event  int
	Choice Choice
	Seed   uint64
	Path   string
}

// Made is a disk that was made.
type Made struct {
	Disk   int
	Chance int // blocks that were left to chance
	Kind   string
	Events int
}

// Make makes a disk with an empty filesystem of a kind.
func (s *service) Make(kind string, made *Made) error {
	f, err := filesystem(kind)
	if err != nil {
		return err
	}
	base, err := s.base(f)
	if err != nil {
		return err
	}
	made.Disk = s.add(f, newDevice(f.Size, base))
	return nil
}

// Cut makes a disk of what a power cut leaves of another one.
func (s *service) Cut(at Where, made *Made) error {
	d, err := s.disk(at.Disk)
	if err != nil {
		return err
	}
	left, chance := d.cut(at.Event, at.Choice, at.Seed)
	*made = Made{Disk: s.add(d.kind, newDevice(d.size, left)), Chance: chance, Kind: d.kind.Name}
	return nil
}

// Mount mounts a disk and answers where.
func (s *service) Mount(n int, dir *string) (err error) {
	*dir, err = s.mount(n)
	return err
}

// Unmount unmounts a disk.
func (s *service) Unmount(n int, _ *bool) error { return s.unmount(n, false) }

// Drop unmounts a disk and forgets it.
func (s *service) Drop(n int, _ *bool) error { return s.drop(n, false) }

// Mark makes what is on a disk durable and forgets its events.
func (s *service) Mark(n int, _ *bool) error {
	d, err := s.disk(n)
	if err == nil {
		d.mark()
	}
	return err
}

// Events is how many writes and flushes a disk has seen.
func (s *service) Events(n int, events *int) error {
	d, err := s.disk(n)
	if err == nil {
		*events = d.events()
	}
	return err
}

// Save writes what a disk has seen to a file.
func (s *service) Save(at Where, _ *bool) (err error) {
	d, err := s.disk(at.Disk)
	if err != nil {
		return err
	}
	f, err := os.Create(at.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return d.save(f, d.kind.Name)
}

// Load makes a disk of such a file.
func (s *service) Load(path string, made *Made) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	d, kind, err := load(f)
	if err != nil {
		return fmt.Errorf("recording %s: %w", path, err)
	}
	k, err := filesystem(kind)
	if err != nil {
		return err
	}
	*made = Made{Disk: s.add(k, d), Kind: kind, Events: d.events()}
	return nil
}
