//go:build !(darwin || dragonfly || freebsd || linux)

package boltindex

import "os"

// roomIn is how many bytes may still be written below a directory: negative, not
// known.
func roomIn(*os.Root) (int64, error) { return -1, nil }
