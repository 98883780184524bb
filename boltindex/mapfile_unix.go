//go:build darwin || freebsd || linux

package boltindex

import (
	"errors"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapFile maps a file for reading, as far as length and so beyond its end: what
// is written there later can be read without a new map.
func mapFile(f *os.File, length int64) ([]byte, error) {
	if math.MaxInt == math.MaxInt32 {
		return nil, errors.ErrUnsupported // a small address space, which bbolt needs
	}
	return syscall.Mmap(int(f.Fd()), 0, int(length), syscall.PROT_READ, syscall.MAP_SHARED)
}

// release gives back what the process has of a map in memory. It can still be
// read.
func release(data []byte) {
	_ = unix.Madvise(data, unix.MADV_DONTNEED) // without, it is counted twice, and no harm is done
}

func unmap(data []byte) error { return syscall.Munmap(data) }
