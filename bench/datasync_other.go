//go:build !linux

package bench

import "os"

// datasync is the nearest to fdatasync(2) that the host has.
func datasync(f *os.File) error { return f.Sync() }
