//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package boltindex

import (
	"errors"
	"os"
	"syscall"
)

// abandon lets go of a file that bbolt had locked and mapped when it panicked:
// the map, which nobody can reach any more, would keep the lock.
func abandon(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
