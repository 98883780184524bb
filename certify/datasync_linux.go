package certify

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's bytes durable, and of its metadata what reading them
// needs.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
