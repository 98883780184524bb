package disk

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop is a loop device. It lets go of its file by itself when nobody has it
// open or mounted any more.
type loop struct {
	*os.File
	name string
}

// attach makes a block device of a file, with direct access, so that what
// reaches the device reaches the file at once.
func attach(file string) (*loop, error) {
	// Not os.Open: its poller would ask the served file for readiness.
	backing, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer func() { _ = unix.Close(backing) }() // the device has its own
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }() // nothing was written
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		l, err := configure(fmt.Sprintf("/dev/loop%d", number), backing)
		if !errors.Is(err, unix.EBUSY) { // somebody else took it
			return l, err
		}
	}
}

func configure(name string, backing int) (*loop, error) {
	dev, err := openNode(name)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing), Size: 512}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("configure %s: %w", name, err), dev.Close())
	}
	return &loop{dev, name}, nil
}

// nodeWait is how long the node of a device that was just made may take to
// appear.
const nodeWait = time.Second

func openNode(name string) (*os.File, error) {
	for deadline := time.Now().Add(nodeWait); ; time.Sleep(time.Millisecond) {
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err == nil || !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return dev, err
		}
	}
}

// ioctl is an ioctl(2) with a structure that package unix does not know.
func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}
