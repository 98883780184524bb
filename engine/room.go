package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/mediabolt/mediabolt/storage"
)

// room is what is free on the filesystem of a store.
type room struct {
	min   int64 // MinFreeBytes
	dir   *os.File
	block int64 // size of the filesystem's blocks, in bytes; 0: not known
}

// freeSpace is what is free on a filesystem for who has no privileges, in bytes,
// and the size of its blocks. To read it takes 3 µs (BenchmarkFreeSpace, on ext4 and
// tmpfs), on a filesystem of a network perhaps much more.
type freeSpace struct {
	bytes, block int64
}

// openRoom returns nil where nothing is to be kept free.
func openRoom(root *os.Root, min int64) (*room, error) {
	if min == 0 {
		return nil, nil
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	now, err := readFreeSpace(dir)
	if errors.Is(err, errors.ErrUnsupported) {
		err = fmt.Errorf("%w: MinFreeBytes: %w", storage.ErrInvalidConfig, err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("free space of %s: %w", dir.Name(), err), dir.Close())
	}
	return &room{min: min, dir: dir, block: now.block}, nil
}

func (r *room) close() error {
	if r == nil {
		return nil
	}
	return r.dir.Close()
}

// free is how many bytes are free just now.
func (r *room) free() (int64, error) {
	now, err := readFreeSpace(r.dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", r.dir.Name(), err)
	}
	return now.bytes, nil
}

// blocks is what n bytes take in blocks, in bytes.
func (r *room) blocks(n int64) int64 {
	if n == 0 || r.block == 0 {
		return n
	}
	return (n + r.block - 1) / r.block * r.block
}
