//go:build !windows

package storage

import "syscall"

// errDiskFullHost has no value of its own outside Windows.
const errDiskFullHost = syscall.ENOSPC
