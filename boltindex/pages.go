package boltindex

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/mediabolt/mediabolt/storage"
)

// The page format of bbolt (its internal/common/page.go), in the byte order of
// the host:
//
//	header          id uint64, flags uint16, count uint16, overflow uint32
//	branch element  pos uint32, ksize uint32, child uint64
//	leaf element    flags uint32, pos uint32, ksize uint32, vsize uint32
//	free list       page numbers uint64, in order; from 65535 on their number
//	                comes first, and count is 65535
//
// A position counts from the element itself. The value of a leaf element with
// the bucket flag begins with the bucket's root page, or 0 where the bucket is
// inline behind it. Overflow is how many pages more this one takes up.
const (
	pageHeader   = 16
	pageElement  = 16
	bucketHeader = 16 // root page, sequence
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFree     = 0x10
	flagBucket   = 0x01
	manyFree     = 0xFFFF
)

// page is a page with its overflow.
type page []byte

func (p page) id() uint64       { return binary.NativeEndian.Uint64(p) }
func (p page) flags() uint16    { return binary.NativeEndian.Uint16(p[8:]) }
func (p page) count() int       { return int(binary.NativeEndian.Uint16(p[10:])) }
func (p page) overflow() uint64 { return uint64(binary.NativeEndian.Uint32(p[12:])) }
func (p page) leaf() bool       { return p.flags() == flagLeaf }

// field is the nth number of an element.
func (p page) field(i, n int) int {
	return int(binary.NativeEndian.Uint32(p[pageHeader+i*pageElement+4*n:]))
}

func (p page) key(i int) []byte {
	at := pageHeader + i*pageElement
	if p.leaf() {
		return p[at+p.field(i, 1):][:p.field(i, 2)]
	}
	return p[at+p.field(i, 0):][:p.field(i, 1)]
}

func (p page) value(i int) []byte {
	size := p.field(i, 3)
	return p[pageHeader+i*pageElement+p.field(i, 1)+p.field(i, 2):][:size:size]
}

func (p page) child(i int) uint64 {
	return binary.NativeEndian.Uint64(p[pageHeader+i*pageElement+8:])
}

// search is the first element whose key is not before key.
func (p page) search(key []byte) int {
	pos := 0 // the field of an element that says where its key is, before that of its length
	if p.leaf() {
		pos = 1
	}
	low, high := 0, p.count()
	for low < high {
		mid := (low + high) / 2
		at := pageHeader + mid*pageElement + p.field(mid, pos)
		if string(p[at:][:p.field(mid, pos+1)]) < string(key) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// pageWalk reads every page in use, or those that a transaction has written,
// from the file and checks what they point to before it goes there.
type pageWalk struct {
	file io.ReaderAt
	meta meta
	seen bitset
	// old says of a page that it is as it was before the transaction, and so
	// is all below it. Nil: none is.
	old func(id uint64) bool
	// visit gets every page.
	visit func(p page) error
}

func newPageWalk(file io.ReaderAt, m meta, visit func(page) error) *pageWalk {
	return &pageWalk{file: file, meta: m, seen: make(bitset, m.end/64+1), visit: visit}
}

// run walks the buckets, and then looks at the list of free pages.
func (w *pageWalk) run() error {
	if err := w.page(w.meta.root); err != nil {
		return err
	}
	if w.meta.free >= w.meta.end {
		return fmt.Errorf("%w: free list at page %d of %d", storage.ErrCorrupted, w.meta.free, w.meta.end)
	}
	p, err := readPage(w.file, w.meta, w.meta.free)
	if err != nil {
		return err
	}
	free, err := freePages(p, w.meta.end)
	if err != nil {
		return err
	}
	if err := w.mark(p); err != nil {
		return err
	}
	for _, id := range free {
		if w.seen.has(id) {
			return fmt.Errorf("%w: page %d is in use and in the free list", storage.ErrCorrupted, id)
		}
	}
	return w.visit(p)
}

// mark notes the pages that one takes up with its overflow.
func (w *pageWalk) mark(p page) error {
	for id := p.id(); id <= p.id()+p.overflow(); id++ {
		if w.seen.has(id) {
			return w.badPointer(id)
		}
		w.seen.add(id)
	}
	return nil
}

func (w *pageWalk) badPointer(id uint64) error {
	return fmt.Errorf("%w: page %d of %d is pointed to, out of bounds or for the second time", storage.ErrCorrupted, id, w.meta.end)
}

func (w *pageWalk) page(id uint64) error {
	if id < 2 || id >= w.meta.end || w.seen.has(id) {
		return w.badPointer(id)
	}
	if w.old != nil && w.old(id) {
		w.seen.add(id)
		return nil
	}
	p, err := readPage(w.file, w.meta, id)
	if err != nil {
		return err
	}
	if err := w.mark(p); err != nil {
		return err
	}
	if err := w.visit(p); err != nil {
		return err
	}
	return w.elements(p)
}

// readPage reads a page with its overflow.
func readPage(file io.ReaderAt, m meta, id uint64) (page, error) {
	read := func(p page) error {
		if _, err := file.ReadAt(p, int64(id)*m.pageSize); err != nil {
			return fmt.Errorf("page %d: %w", id, damageAtEnd(err))
		}
		return nil
	}
	p := make(page, m.pageSize)
	if err := read(p); err != nil {
		return nil, err
	}
	if p.id() != id || id+p.overflow() >= m.end {
		return nil, misplaced(p, id)
	}
	if p.overflow() > 0 {
		p = make(page, int64(p.overflow()+1)*m.pageSize)
		return p, read(p)
	}
	return p, nil
}

func misplaced(p page, id uint64) error {
	return fmt.Errorf("%w: page %d says that it is page %d with %d more", storage.ErrCorrupted, id, p.id(), p.overflow())
}

// damageAtEnd is ErrCorrupted where a file ends too early.
func damageAtEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", storage.ErrCorrupted, err)
	}
	return err
}

// elements checks the elements of a page and goes on to the pages they point
// to.
func (w *pageWalk) elements(p page) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("page %d: %w", p.id(), err)
	}
	for i := range p.count() {
		child, err := p.points(i)
		if err == nil && (child != 0 || !p.leaf()) {
			err = w.page(child)
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", p.id(), err)
		}
	}
	return nil
}

// check looks at the header and at how far the elements reach.
func (p page) check() error {
	if len(p) < pageHeader || !p.leaf() && p.flags() != flagBranch || pageHeader+p.count()*pageElement > len(p) || !p.leaf() && p.count() == 0 {
		return fmt.Errorf("%w: no page of rows or of pages: % x", storage.ErrCorrupted, p[:min(len(p), pageHeader)])
	}
	for i := range p.count() {
		end := pageHeader + i*pageElement + p.field(i, 0) + p.field(i, 1)
		if p.leaf() {
			end += p.field(i, 2) + p.field(i, 3) - p.field(i, 0)
		}
		if end > len(p) {
			return fmt.Errorf("%w: element %d of %d reaches past the page", storage.ErrCorrupted, i, p.count())
		}
	}
	return nil
}

// points is the page that an element points to, 0 for none.
func (p page) points(i int) (uint64, error) {
	if !p.leaf() {
		return p.child(i), nil
	}
	if p.field(i, 0)&flagBucket == 0 {
		return 0, nil
	}
	b, err := parseBucket(p.value(i))
	if err != nil || b.page != 0 {
		return b.page, err
	}
	for i := range b.inline.count() {
		if b.inline.field(i, 0)&flagBucket != 0 {
			return 0, fmt.Errorf("%w: a bucket in an inline bucket", storage.ErrCorrupted)
		}
	}
	return 0, nil
}

// tree is where a bucket has its rows: in pages from a root on, or inline.
type tree struct {
	page   uint64
	inline page
}

func parseBucket(value []byte) (tree, error) {
	if len(value) < bucketHeader {
		return tree{}, fmt.Errorf("%w: a bucket of %d bytes", storage.ErrCorrupted, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return tree{page: root}, nil
	}
	inline := page(value[bucketHeader:])
	if err := inline.check(); err != nil || !inline.leaf() {
		return tree{}, fmt.Errorf("%w: an inline bucket of %d bytes", storage.ErrCorrupted, len(value))
	}
	return tree{inline: inline}, nil
}

// freePages is the list of free pages, of a file with so many pages.
func freePages(p page, end uint64) ([]uint64, error) {
	if p.flags() != flagFree {
		return nil, fmt.Errorf("%w: page %d is no list of free pages", storage.ErrCorrupted, p.id())
	}
	rest, count := p[pageHeader:], uint64(p.count())
	if count == manyFree {
		count, rest = binary.NativeEndian.Uint64(rest), rest[8:]
	}
	if count > uint64(len(rest)/8) {
		return nil, fmt.Errorf("%w: page %d has room for less than %d free pages", storage.ErrCorrupted, p.id(), count)
	}
	list := make([]uint64, count)
	last := uint64(1) // the meta pages are never free
	for i := range list {
		list[i] = binary.NativeEndian.Uint64(rest[8*i:])
		if list[i] <= last || list[i] >= end {
			return nil, fmt.Errorf("%w: free list has page %d after %d, of %d", storage.ErrCorrupted, list[i], last, end)
		}
		last = list[i]
	}
	return list, nil
}

// isFree looks a page up in a list.
func isFree(list []uint64, id uint64) bool {
	_, found := slices.BinarySearch(list, id)
	return found
}

type bitset []uint64

func (b bitset) has(i uint64) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) add(i uint64)      { b[i/64] |= 1 << (i % 64) }
