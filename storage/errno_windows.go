package storage

import "syscall"

// errDiskFullHost is ERROR_DISK_FULL of winerror.h.
const errDiskFullHost = syscall.Errno(112)
