//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package boltindex

import "os"

// canReplace: Windows does not rename over an open file, and locks elsewhere are not
// those of a file.
const canReplace = false

// tryLock leaves the lock to bbolt, for which a file that is locked already is one
// of somebody else.
func tryLock(*os.File) bool { return false }

// abandon lets go of a file that bbolt had locked when it panicked.
func abandon(f *os.File) error { return f.Close() }
