package boltindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// The page format of bbolt (its internal/common/page.go), in the byte order of
// the host:
//
//	header          id uint64, flags uint16, count uint16, overflow uint32
//	branch element  pos uint32, ksize uint32, child uint64
//	leaf element    flags uint32, pos uint32, ksize uint32, vsize uint32
//
// A position counts from the element itself. The value of a leaf element with
// the bucket flag begins with the bucket's root page, or 0 where the bucket is
// inline behind it.
const (
	pageHeader  = 16
	pageElement = 16
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagBucket  = 0x01
)

// pageWalk reads every page in use from the file, before bbolt does through its
// map: bbolt trusts a page, and a pointer that leads past the file or back up
// the tree would end the process or keep it busy for ever.
type pageWalk struct {
	file *os.File
	size int64 // of a page
	end  uint64
	seen map[uint64]bool
}

// checkPages walks the trees of the transaction's state, and answers
// ErrCorrupted.
func (x *Index) checkPages(tx *bolt.Tx) error {
	size := int64(tx.DB().Info().PageSize)
	w := &pageWalk{file: x.file, size: size, end: uint64(tx.Size() / size), seen: map[uint64]bool{}}
	return w.page(uint64(tx.Cursor().Bucket().Root()))
}

func (w *pageWalk) page(id uint64) error {
	if id < 2 || id >= w.end || w.seen[id] {
		return fmt.Errorf("%w: page %d of %d is pointed to, out of bounds or for the second time", storage.ErrCorrupted, id, w.end)
	}
	w.seen[id] = true
	head := make([]byte, pageHeader)
	if err := w.read(head, id); err != nil {
		return err
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if own := binary.NativeEndian.Uint64(head); own != id || id+overflow >= w.end {
		return fmt.Errorf("%w: page %d says that it is page %d with %d more", storage.ErrCorrupted, id, own, overflow)
	}
	page := make([]byte, (int64(overflow)+1)*w.size)
	if err := w.read(page, id); err != nil {
		return err
	}
	return w.elements(id, page)
}

func (w *pageWalk) read(p []byte, id uint64) error {
	if _, err := w.file.ReadAt(p, int64(id)*w.size); err != nil {
		return fmt.Errorf("%w: page %d: %w", storage.ErrCorrupted, id, err)
	}
	return nil
}

// elements checks the elements of a page and goes on to the pages they point
// to.
func (w *pageWalk) elements(id uint64, page []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != flagBranch && flags != flagLeaf || pageHeader+count*pageElement > len(page) || flags == flagBranch && count == 0 {
		return fmt.Errorf("%w: page %d has flags %#x and %d elements", storage.ErrCorrupted, id, flags, count)
	}
	for i := range count {
		at := pageHeader + i*pageElement
		child, err := element(page, at, flags)
		if err == nil && (child != 0 || flags == flagBranch) {
			err = w.page(child)
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
	}
	return nil
}

// element checks the element at an offset and returns the page it points to, 0
// for none.
func element(page []byte, at int, flags uint16) (child uint64, err error) {
	field := func(n int) int { return int(binary.NativeEndian.Uint32(page[at+n:])) }
	pos, ksize, vsize := field(0), field(4), 0
	if flags == flagLeaf {
		pos, ksize, vsize = field(4), field(8), field(12)
	}
	if at+pos+ksize+vsize > len(page) {
		return 0, fmt.Errorf("%w: an element reaches past the page", storage.ErrCorrupted)
	}
	switch {
	case flags == flagBranch:
		return binary.NativeEndian.Uint64(page[at+8:]), nil
	case field(0)&flagBucket == 0:
		return 0, nil
	}
	value := page[at+pos+ksize:][:vsize]
	const bucketHeader = 16 // root page, sequence
	if vsize < bucketHeader {
		return 0, fmt.Errorf("%w: a bucket of %d bytes", storage.ErrCorrupted, vsize)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return root, nil
	}
	if vsize < bucketHeader+pageHeader {
		return 0, fmt.Errorf("%w: an inline bucket of %d bytes", storage.ErrCorrupted, vsize)
	}
	return 0, inlineBucket(value[bucketHeader:])
}

// inlineBucket checks the elements of a bucket that lies inside a value.
func inlineBucket(page []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != flagLeaf || pageHeader+count*pageElement > len(page) {
		return fmt.Errorf("%w: an inline bucket has flags %#x and %d elements", storage.ErrCorrupted, flags, count)
	}
	for i := range count {
		child, err := element(page, pageHeader+i*pageElement, flags)
		if err != nil || child != 0 {
			return fmt.Errorf("%w: an inline bucket points to page %d", errors.Join(storage.ErrCorrupted, err), child)
		}
	}
	return nil
}
