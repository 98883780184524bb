//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package boltindex

import "os"

// abandon lets go of a file that bbolt had locked when it panicked.
func abandon(f *os.File) error { return f.Close() }
