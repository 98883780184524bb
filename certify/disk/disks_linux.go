package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Disks is a running disk server. It is safe for concurrent use.
type Disks struct {
	child *exec.Cmd
	calls *rpc.Client
	dir   string
	said  bytes.Buffer // by the server, on standard error
}

// Missing says what this machine lacks to run a disk server; nil if nothing.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	for _, name := range [...]string{"/dev/fuse", "/dev/loop-control"} {
		if err := unix.Access(name, unix.R_OK|unix.W_OK); err != nil {
			return &os.PathError{Op: "access", Path: name, Err: err}
		}
	}
	return nil
}

// Start starts a disk server, which ends with this process at the latest. dir
// is an existing directory for its mount points and temporary files.
func Start(dir string) (_ *Disks, err error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "disk server"), os.NewFile(uintptr(pair[1]), "disk server's")
	defer func() { err = errors.Join(err, ours.Close(), theirs.Close()) }() // both have been copied by then
	d := &Disks{dir: dir}
	d.child = exec.Command(self)
	d.child.Env = append(os.Environ(), serverEnv+"="+dir)
	d.child.Stdin, d.child.Stderr = theirs, &d.said
	// A terminal's interrupt is for this process: the server ends after it.
	d.child.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	if err := d.child.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start disk server: %w", err), conn.Close())
	}
	d.calls = rpc.NewClient(conn)
	return d, nil
}

// Close ends the server, which unmounts everything.
func (d *Disks) Close() error {
	err := d.calls.Close()
	if e := d.child.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("disk server: %w: %s", e, d.said.Bytes()), d.cleanUp())
	}
	return err
}

// cleanUp unmounts what a server that was killed has left. Loop devices go with
// what was mounted from them.
func (d *Disks) cleanUp() error {
	left, err := filepath.Glob(filepath.Join(d.dir, mountPrefix+"*"))
	for _, dir := range append(left, filepath.Join(d.dir, disksDir)) {
		if e := unix.Unmount(dir, unix.MNT_DETACH); e != nil && e != unix.EINVAL { // not a mount point
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", dir, e))
		}
	}
	return err
}

func (d *Disks) call(method string, arg, reply any) error {
	if err := d.calls.Call("Disks."+method, arg, reply); err != nil {
		return fmt.Errorf("disk server: %s: %w", method, err)
	}
	return nil
}

// mounted is a mounted disk.
type mounted struct {
	disks *Disks
	disk  int
	dir   string

	mu   sync.Mutex // guards lost
	lost error      // why the events could not be counted
}

func (d *Disks) mount(disk int) (*mounted, error) {
	m := &mounted{disks: d, disk: disk}
	if err := d.call("Mount", disk, &m.dir); err != nil {
		return nil, err
	}
	return m, nil
}

// clock is the number of events so far, after those of an earlier disk.
func (m *mounted) clock(origin int64) func() int64 {
	return func() int64 {
		var n int
		if err := m.disks.call("Events", m.disk, &n); err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.lost = err
		}
		return origin + int64(n)
	}
}

// unmount unmounts the disk, and answers whether the clock has always worked.
func (m *mounted) unmount() error {
	err := m.disks.call("Unmount", m.disk, new(bool))
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(err, m.lost)
}

// mark makes everything durable and has the events begin anew.
func (m *mounted) mark(ctx context.Context) error {
	dir, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return errors.Join(os.NewSyscallError("syncfs", err), dir.Close())
	}
	if err := errors.Join(ctx.Err(), dir.Close()); err != nil {
		return err
	}
	return m.disks.call("Mark", m.disk, new(bool))
}

func (d *Disks) drop(disk int) error { return d.call("Drop", disk, new(bool)) }
