//go:build darwin || dragonfly || freebsd || linux

package boltindex

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// roomIn is how many bytes whoever runs this may still write below a directory.
func roomIn(root *os.Root) (int64, error) {
	dir, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	var s unix.Statfs_t
	if err := errors.Join(unix.Fstatfs(int(dir.Fd()), &s), dir.Close()); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
