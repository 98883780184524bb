package blobs

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriting has the kernel write out a part of a file without waiting for it.
// Without SYNC_FILE_RANGE_WAIT_* the call reports no error of the disk, so that
// none is lost to the sync that does; its own say that the file has no disk below.
func beginWriting(f *os.File, from, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, length, unix.SYNC_FILE_RANGE_WRITE)
}
