//go:build linux || darwin

package doctor

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// isLocked tries a shared lock for a moment, in which an opener that does not wait at
// all would be refused.
func isLocked(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	return false, unix.Flock(int(f.Fd()), unix.LOCK_UN)
}
