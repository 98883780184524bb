package engine

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// guardName is a file that is there to be locked, since directories cannot be.
const guardName = "guard"

func openGuard(ctl *os.Root) (*os.File, error) {
	return ctl.OpenFile(guardName, os.O_RDWR|os.O_CREATE, 0o600)
}

// tryGuard says whether it got the lock.
func tryGuard(f *os.File, alone bool) (bool, error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if alone {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}
