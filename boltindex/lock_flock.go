//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package boltindex

import (
	"errors"
	"os"
	"syscall"
)

// canReplace says that an open file can be renamed over, and that a second opener is
// told from the first by the lock of a file alone.
const canReplace = true

// tryLock takes the lock of a file as bbolt does, which then gets it as well: it
// belongs to the opened file. It says whether nobody else had it.
func tryLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// abandon lets go of a file that bbolt had locked and mapped when it panicked:
// the map, which nobody can reach any more, would keep the lock.
func abandon(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
