//go:build linux || darwin || freebsd

package engine

import (
	"os"

	"golang.org/x/sys/unix"
)

func readFreeSpace(dir *os.File) (freeSpace, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &s); err != nil {
		return freeSpace{}, os.NewSyscallError("fstatfs", err)
	}
	block := int64(s.Bsize)
	return freeSpace{bytes: int64(s.Bavail) * block, block: block}, nil
}
