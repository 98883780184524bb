package engine

import (
	"fmt"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// roomAge is how long a look at the free space of the filesystem is good for, as
// long as it says that there is enough. A look takes 3 µs (BenchmarkFreeSpace, on
// ext4 and tmpfs), on a filesystem of a network perhaps much more.
const roomAge = 50 * time.Millisecond

// room is what is free on the filesystem of a store, for limits, whose mutex guards
// it.
type room struct {
	min  int64 // MinFreeBytes
	dir  *os.File
	last freeSpace // at some time, less what was written since
	at   time.Time
}

// freeSpace is what is free on a filesystem for who has no privileges, in bytes,
// and the size of its blocks.
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
	r := &room{min: min, dir: dir}
	if _, err := r.free(true); err != nil {
		return nil, fmt.Errorf("%w: MinFreeBytes: %w", storage.ErrInvalidConfig, err)
	}
	return r, nil
}

func (r *room) close() error {
	if r == nil {
		return nil
	}
	return r.dir.Close()
}

// free is how many bytes are free, just now where that is asked for.
func (r *room) free(fresh bool) (int64, error) {
	if !fresh && time.Since(r.at) < roomAge {
		return r.last.bytes, nil
	}
	now, err := readFreeSpace(r.dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", r.dir.Name(), err)
	}
	r.last, r.at = now, time.Now()
	return now.bytes, nil
}

// wrote is told of bytes that may have been written since the last look.
func (r *room) wrote(n int64) { r.last.bytes -= n }

// blocks is what n bytes take in blocks, in bytes.
func (r *room) blocks(n int64) int64 {
	if n == 0 || r.last.block <= 0 {
		return n
	}
	return (n + r.last.block - 1) / r.last.block * r.last.block
}
