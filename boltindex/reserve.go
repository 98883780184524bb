package boltindex

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
)

// reserveSize is what a transaction that deletes one reference may need at
// worst (about 30 pages of 4 KiB when every tree is four levels deep), with
// room for the filesystem's own metadata.
const reserveSize = 1 << 20

// refillReserve makes the reserve file if it is not there. A disk without
// room for it is not an error: the next opening or checkpoint tries again.
func (x *Index) refillReserve() {
	if _, err := x.root.Lstat(reserveName); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := x.makeReserve(); err != nil {
		x.log.Warn("no reserve: deletions may fail while the disk is full", "index", x.path, "error", err)
		_ = x.root.Remove(reserveName) // a partial one is of no use; it may not exist
	}
}

func (x *Index) makeReserve() error {
	f, err := x.root.OpenFile(reserveName, os.O_CREATE|os.O_EXCL|os.O_WRONLY, x.mode)
	if err != nil {
		return err
	}
	// Bytes that no filesystem can leave out or compress.
	noise := make([]byte, reserveSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // is documented to never fail
	_, err = f.Write(noise)
	return errors.Join(err, f.Sync(), f.Close())
}

// releaseReserve gives the reserve's blocks back to the disk.
func (x *Index) releaseReserve() bool {
	if err := x.root.Remove(reserveName); err != nil {
		x.log.Warn("reserve cannot be given up", "index", x.path, "error", err)
		return false
	}
	x.log.Warn("disk full: gave up the reserve to commit deletions", "index", x.path)
	return true
}
