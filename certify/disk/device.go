// Package disk cuts the power of a disk that real filesystems are on.
//
// A server process (server_linux.go) serves disks as files of a FUSE
// filesystem. A loop device makes a block device of each, and an ordinary
// filesystem is made and mounted on that: below the served file everything is
// the kernel's own, above it as well. The server sees every write and every
// flush, so it knows what a disk with a volatile cache has promised:
//
//	a write   is in the cache from its beginning on
//	a flush   makes every write durable that had ended when the flush began
//
// A power cut after event k leaves what was durable by then, and of the writes
// that were not, whatever the disk happened to have written: none, all, or any
// 4 KiB blocks of them (choice.go). A block itself is never torn.
//
// A Recording (recording_linux.go) is a workload on such a disk. Every cut of
// it is mounted, which has the filesystem replay its journal, and judged
// (cut_linux.go). That is recorded in turn, so that recovery can be cut too.
package disk

import (
	"maps"
	"sync"
)

// blockSize is the unit in which a disk loses data, in bytes.
const blockSize = 4096

// image is what is on a disk, by block number; a block that is missing is
// zeros. Blocks are never changed, only replaced.
type image map[int64][]byte

// apply puts a piece of a write onto the image.
func (m image) apply(p piece) {
	n := p.Offset / blockSize
	if len(p.Data) == blockSize {
		m[n] = p.Data
		return
	}
	block := make([]byte, blockSize)
	copy(block, m[n])
	copy(block[p.Offset%blockSize:], p.Data)
	m[n] = block
}

// piece is as much of a write as lies in one block.
type piece struct {
	Offset int64 // bytes from the beginning of the disk
	Data   []byte
}

// split makes pieces of a write, with a copy of its bytes.
func split(offset int64, data []byte) []piece {
	data = append([]byte(nil), data...)
	var list []piece
	for len(data) > 0 {
		n := min(int64(len(data)), blockSize-offset%blockSize)
		list = append(list, piece{offset, data[:n:n]})
		offset, data = offset+n, data[n:]
	}
	return list
}

// event is a write, or a flush if it has no pieces.
type event struct {
	Pieces []piece
	// Durable is the number of the first flush that covers a write, 0 as long
	// as there is none. Events are numbered from 1 on.
	Durable int

	ended bool
}

// device is a disk with a volatile cache. It is safe for concurrent use.
type device struct {
	size int64 // bytes

	mu   sync.Mutex // guards the rest
	base image      // before the first event
	now  image      // after the last
	log  []event
	open []int // writes that no flush covers yet, by number
}

func newDevice(size int64, base image) *device {
	return &device{size: size, base: base, now: maps.Clone(base)}
}

// read fills buf from an offset on.
func (d *device) read(buf []byte, offset int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(buf) > 0 {
		in := offset % blockSize
		part := buf[:min(int64(len(buf)), blockSize-in)]
		if block := d.now[offset/blockSize]; block == nil {
			clear(part)
		} else {
			copy(part, block[in:])
		}
		offset, buf = offset+int64(len(part)), buf[len(part):]
	}
}

// write begins a write, and returns the function that ends it.
func (d *device) write(data []byte, offset int64) (end func()) {
	pieces := split(offset, data)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range pieces {
		d.now.apply(p)
	}
	d.log = append(d.log, event{Pieces: pieces})
	number := len(d.log)
	d.open = append(d.open, number)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if number <= len(d.log) {
			d.log[number-1].ended = true
		}
	}
}

// flush begins a flush, and returns the function that ends it. The event is
// its end: only then has the disk promised anything.
func (d *device) flush() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var covered []int
	for _, number := range d.open {
		if d.log[number-1].ended {
			covered = append(covered, number)
		}
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.log = append(d.log, event{})
		for _, number := range covered {
			if e := &d.log[number-1]; e.Durable == 0 {
				e.Durable = len(d.log)
			}
		}
		still := d.open[:0]
		for _, number := range d.open {
			if d.log[number-1].Durable == 0 {
				still = append(still, number)
			}
		}
		d.open = still
	}
}

// events is how many there have been.
func (d *device) events() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// mark makes what is on the disk durable and forgets how it came there. Nothing
// may be under way.
func (d *device) mark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.log, d.open = maps.Clone(d.now), nil, nil
}
