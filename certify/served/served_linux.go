// Package served runs a FUSE filesystem in a process of its own.
//
// The process that uses a filesystem must not be the one that serves it: a
// thread of Go that waits for a page of a memory map keeps its processor and
// cannot be stopped for a collection, and the server whose answer it waits for
// may need either. bbolt maps its file.
//
// The serving process is the calling program once more, told by the environment
// what to do, so the program calls Main early. It ends, and unmounts, when its
// standard input does: also when the process that mounted is killed.
package served

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// specEnv holds an order in JSON.
const specEnv = "MEDIABOLT_CERTIFY_SERVE"

// raceEnv lets a process end at once that was built with the race detector, which
// otherwise sleeps for a second first: a test mounts hundreds of times.
const raceEnv = "GORACE=atexit_sleep_ms=0"

// order is what a serving process is told.
type order struct {
	Kind string
	Dir  string // where to mount
	Spec json.RawMessage
}

// ready is the line by which a serving process says that it is mounted.
const ready = "ready"

// patience is how long a serving process may take to mount or to end.
const patience = 20 * time.Second

// Filesystem is what a serving process serves.
type Filesystem interface {
	fuse.RawFileSystem
	// Close is called when nothing can arrive any more.
	Close() error
}

// Main returns at once, unless this process was started to serve filesystems
// of that kind: then it serves, and exits.
func Main(kind string, make func(spec json.RawMessage) (Filesystem, error)) {
	var o order
	text := os.Getenv(specEnv)
	if text == "" {
		return
	}
	if err := json.Unmarshal([]byte(text), &o); err == nil && o.Kind != kind {
		return
	}
	if err := o.serve(make); err != nil {
		fmt.Fprintln(os.Stdout, strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

func (o *order) serve(make func(json.RawMessage) (Filesystem, error)) error {
	// Whoever mounts may be killed at any time, also while it is told "ready":
	// a mount without its server must not stay.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGINT, syscall.SIGTERM)
	fs, err := make(o.Spec)
	if err != nil {
		return err
	}
	server, err := fuse.NewServer(fs, o.Dir, &fuse.MountOptions{
		FsName: "mediabolt-" + o.Kind, Name: "mediabolt", DirectMountStrict: true, IgnoreSecurityLabels: true,
		DisableReadDirPlus: true, MaxWrite: fuse.MAX_KERNEL_WRITE,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", o.Dir, err), fs.Close())
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", o.Dir, err), detach(o.Dir), fs.Close())
	}
	fmt.Println(ready)
	_, err = io.Copy(io.Discard, os.Stdin)
	err = errors.Join(err, detach(o.Dir))
	server.Wait()
	return errors.Join(err, fs.Close())
}

// detach unmounts also what somebody still has open.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		return nil // is not mounted
	}
	return err
}

// Mount is a filesystem that another process serves.
type Mount struct {
	Dir string

	child *exec.Cmd
	stdin io.Closer
	lines *bufio.Reader
	once  sync.Once
	err   error
}

// New has a process serve a filesystem of a kind on a directory, which must be
// there and empty. The process's Main makes it from spec. Needs root.
func New(kind, dir string, spec any) (*Mount, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if text, err = json.Marshal(order{Kind: kind, Dir: dir, Spec: text}); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &Mount{Dir: dir, child: exec.Command(self)}
	m.child.Env = append(os.Environ(), specEnv+"="+string(text), raceEnv)
	m.child.Stderr = os.Stderr
	// A signal to the group of whoever mounts must not end it before it has
	// unmounted.
	m.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if m.stdin, err = m.child.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.lines = bufio.NewReader(out)
	if err := m.child.Start(); err != nil {
		return nil, err
	}
	said := m.hear()
	if said != ready {
		return nil, fmt.Errorf("serve %s on %s: %w", kind, dir, errors.Join(errors.New(said), m.Close()))
	}
	return m, nil
}

// hear is the next line of the serving process.
func (m *Mount) hear() string {
	line := make(chan string, 1)
	go func() {
		s, err := m.lines.ReadString('\n')
		if err != nil && s == "" {
			s = fmt.Sprintf("the serving process says nothing: %v", err)
		}
		line <- strings.TrimSpace(s)
	}()
	select {
	case s := <-line:
		return s
	case <-time.After(patience):
		_ = m.child.Process.Kill() // Close says how it ended
		return "the serving process does not answer"
	}
}

// Close unmounts and waits until the serving process has ended. A second one
// tells the same.
func (m *Mount) Close() error {
	m.once.Do(func() {
		err := m.stdin.Close()
		killer := time.AfterFunc(patience, func() { _ = m.child.Process.Kill() }) // Wait says so
		said, _ := io.ReadAll(m.lines)
		if e := m.child.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("serving process of %s: %w: %s", m.Dir, e, said))
		}
		killer.Stop()
		m.err = errors.Join(err, detach(m.Dir))
	})
	return m.err
}
