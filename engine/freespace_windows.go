package engine

import (
	"os"

	"golang.org/x/sys/windows"
)

func readFreeSpace(dir *os.File) (freeSpace, error) {
	name, err := windows.UTF16PtrFromString(dir.Name())
	if err != nil {
		return freeSpace{}, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return freeSpace{}, os.NewSyscallError("GetDiskFreeSpaceEx", err)
	}
	return freeSpace{bytes: int64(free)}, nil
}
