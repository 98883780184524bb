//go:build !linux

package blobs

import "os"

// wholeSyncFrom has no use where filesystem cannot be had.
const wholeSyncFrom = 0

// filesystem cannot be synced as a whole outside Linux.
type filesystem struct{}

func openFilesystem(*os.Root, func() error) (*filesystem, error) { return nil, nil }

func (*filesystem) Sync() error  { return nil }
func (*filesystem) Close() error { return nil }

// datasync makes a file's bytes durable.
func datasync(f *os.File) error { return f.Sync() }
