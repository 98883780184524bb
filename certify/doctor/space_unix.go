//go:build linux || darwin

package doctor

import (
	"context"

	"golang.org/x/sys/unix"
)

func spaceOf(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, err
	}
	block := int64(s.Bsize)
	return Space{
		Free: int64(s.Bavail) * block, Total: int64(s.Blocks) * block, FreeInodes: int64(s.Ffree), Inodes: int64(s.Files),
	}, nil
}

// enoughFiles is for the 512 files that a store with many writers holds open between
// stage and publish, and as many readers.
const enoughFiles = 1024

func (r *Report) limits(context.Context) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.add("limits", Note, "", "cannot tell how many files may be open: %v", err)
		return
	}
	if limit.Cur < enoughFiles {
		r.add("limits", Warning, "raise it for the process that has the store open, with 'ulimit -n 4096' or LimitNOFILE=",
			"%d files may be open at once here; many writers and readers need some %d", limit.Cur, enoughFiles)
	}
}
