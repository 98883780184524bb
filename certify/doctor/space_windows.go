package doctor

import (
	"context"

	"golang.org/x/sys/windows"
)

// spaceOf knows no inodes, of which NTFS has no fixed number.
func spaceOf(dir string) (Space, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return Space{}, err
	}
	var free, total uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, &total, nil); err != nil {
		return Space{}, err
	}
	return Space{Free: int64(free), Total: int64(total)}, nil
}

// limits has nothing to say: Windows has no such limit that matters here.
func (r *Report) limits(context.Context) {}
