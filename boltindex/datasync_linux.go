package boltindex

import (
	"os"
	"syscall"
)

// datasync makes a file's bytes durable, and of its metadata what reading them
// needs.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
