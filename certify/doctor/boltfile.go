package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"sort"
)

// boltFile is a file of bbolt, read without bbolt, which takes its pages for good:
// every position is checked before it is followed, and no way down is longer than
// maxDepth. The format is that of bbolt's internal/common, in the byte order of the
// host:
//
//	page            id uint64, flags uint16, count uint16, overflow uint32
//	meta page       behind that: magic uint32, version uint32, page size uint32,
//	                flags uint32, root uint64, sequence uint64, free list uint64,
//	                pages uint64, transaction uint64, FNV-1a 64 of these
//	branch element  pos uint32, ksize uint32, child uint64
//	leaf element    flags uint32, pos uint32, ksize uint32, vsize uint32
//	bucket          as a value: root uint64, sequence uint64, and where root is 0
//	                a page behind it
//	free list       numbers uint64; from 65535 on how many comes first
type boltFile struct {
	file io.ReaderAt
	boltMeta
}

type boltMeta struct {
	pageSize, root, free, pages, transaction uint64
}

const (
	headerSize  = 16
	elementSize = 16
	metaSize    = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagFree    = 0x10
	manyFree    = 0xFFFF
	maxDepth    = 32
	// maxPage bounds a page with its overflow that is read whole, in bytes.
	maxPage = 1 << 28
)

var errDamaged = errors.New("damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// openBolt reads the newer of the two meta pages.
func openBolt(file io.ReaderAt) (*boltFile, error) {
	var best boltMeta
	found := false
	consider := func(at int64) uint64 {
		m, ok := readMeta(file, at)
		if ok && (!found || m.transaction > best.transaction) {
			best, found = m, true
		}
		return m.pageSize
	}
	if size := consider(0); size != 0 {
		consider(int64(size))
	}
	const smallest, largest = 1 << 10, 1 << 24 // pages that bbolt tries, where the first is damaged
	for size := int64(smallest); !found && size <= largest; size *= 2 {
		consider(size)
	}
	if !found {
		return nil, damaged("neither meta page is whole")
	}
	return &boltFile{file, best}, nil
}

func readMeta(file io.ReaderAt, at int64) (boltMeta, bool) {
	page := make([]byte, headerSize+metaSize)
	if _, err := file.ReadAt(page, at); err != nil {
		return boltMeta{}, false
	}
	p := page[headerSize:]
	sum := fnv.New64a()
	_, _ = sum.Write(p[:metaSize-8]) // is documented to never fail
	number := func(at int) uint64 { return binary.NativeEndian.Uint64(p[at:]) }
	m := boltMeta{uint64(binary.NativeEndian.Uint32(p[8:])), number(16), number(32), number(40), number(48)}
	ok := binary.NativeEndian.Uint32(p) == boltMagic && binary.NativeEndian.Uint32(p[4:]) == boltVersion &&
		sum.Sum64() == number(metaSize-8) && m.pageSize >= headerSize+metaSize
	if !ok {
		return boltMeta{}, false
	}
	return m, true
}

// boltPage is a page with its overflow, or an inline one.
type boltPage []byte

func (p boltPage) flags() uint16 { return binary.NativeEndian.Uint16(p[8:]) }
func (p boltPage) count() int    { return int(binary.NativeEndian.Uint16(p[10:])) }

func (f *boltFile) page(id uint64) (boltPage, error) {
	if id < 2 || id >= f.pages {
		return nil, damaged("page %d of %d", id, f.pages)
	}
	header := make(boltPage, headerSize)
	if err := f.read(header, id); err != nil {
		return nil, err
	}
	overflow := uint64(binary.NativeEndian.Uint32(header[12:]))
	size := (overflow + 1) * f.pageSize
	if binary.NativeEndian.Uint64(header) != id || overflow >= f.pages-id || size > maxPage {
		return nil, damaged("page %d says that it is page %d with %d more", id, binary.NativeEndian.Uint64(header), overflow)
	}
	p := make(boltPage, size)
	return p, f.read(p, id)
}

func (f *boltFile) read(p boltPage, id uint64) error {
	_, err := f.file.ReadAt(p, int64(id*f.pageSize))
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("the file ends in page %d of %d", id, f.pages)
	}
	return err
}

// check looks how far the elements of a page of rows or of pages reach.
func (p boltPage) check() error {
	if len(p) < headerSize || p.flags() != flagLeaf && p.flags() != flagBranch || headerSize+p.count()*elementSize > len(p) ||
		p.flags() == flagBranch && p.count() == 0 {
		return damaged("no page of rows or of pages")
	}
	for i := range p.count() {
		at, key, value := p.element(i)
		if at+key+value > uint64(len(p)) {
			return damaged("element %d of %d reaches past its page", i, p.count())
		}
	}
	return nil
}

// element is where in the page an element has its key, and the lengths of key and
// value.
func (p boltPage) element(i int) (at, key, value uint64) {
	begin := headerSize + i*elementSize
	field := func(n int) uint64 { return uint64(binary.NativeEndian.Uint32(p[begin+4*n:])) }
	if p.flags() == flagBranch {
		return uint64(begin) + field(0), field(1), 0
	}
	return uint64(begin) + field(1), field(2), field(3)
}

func (p boltPage) key(i int) []byte {
	at, key, _ := p.element(i)
	return p[at:][:key]
}

func (p boltPage) value(i int) []byte {
	at, key, value := p.element(i)
	return p[at+key:][:value]
}

func (p boltPage) child(i int) uint64 {
	return binary.NativeEndian.Uint64(p[headerSize+i*elementSize+8:])
}

// descend goes from a page to a leaf, by the child that choose names of each page.
func (f *boltFile) descend(p boltPage, choose func(boltPage) int) (boltPage, error) {
	for range maxDepth {
		if err := p.check(); err != nil {
			return nil, err
		}
		if p.flags() == flagLeaf {
			return p, nil
		}
		var err error
		if p, err = f.page(p.child(choose(p))); err != nil {
			return nil, err
		}
	}
	return nil, damaged("more than %d pages above each other", maxDepth)
}

// get is a value below a page, nil where there is none.
func (f *boltFile) get(p boltPage, key string) ([]byte, error) {
	search := func(p boltPage) int {
		return sort.Search(p.count(), func(i int) bool { return string(p.key(i)) >= key })
	}
	leaf, err := f.descend(p, func(p boltPage) int {
		i := search(p)
		if i == p.count() || i > 0 && string(p.key(i)) != key {
			i--
		}
		return i
	})
	if err != nil {
		return nil, err
	}
	if i := search(leaf); i < leaf.count() && string(leaf.key(i)) == key {
		return leaf.value(i), nil
	}
	return nil, nil
}

// bucket is the top page of a bucket.
func (f *boltFile) bucket(name string) (boltPage, error) {
	root, err := f.page(f.root)
	if err != nil {
		return nil, err
	}
	value, err := f.get(root, name)
	if err != nil {
		return nil, err
	}
	if len(value) < headerSize {
		return nil, damaged("no bucket %s", name)
	}
	if id := binary.NativeEndian.Uint64(value); id != 0 {
		return f.page(id)
	}
	return boltPage(value[headerSize:]), nil
}

// last is the greatest key below a page, nil where there is none.
func (f *boltFile) last(p boltPage) ([]byte, error) {
	leaf, err := f.descend(p, func(p boltPage) int { return p.count() - 1 })
	if err != nil || leaf.count() == 0 {
		return nil, err
	}
	return leaf.key(leaf.count() - 1), nil
}

// freePages is how many pages the free list has.
func (f *boltFile) freePages() (uint64, error) {
	p, err := f.page(f.free)
	if err != nil {
		return 0, err
	}
	if p.flags() != flagFree {
		return 0, damaged("page %d is no list of free pages", f.free)
	}
	count, room := uint64(p.count()), uint64(len(p)-headerSize)/8
	if count == manyFree {
		count = binary.NativeEndian.Uint64(p[headerSize:])
		room--
	}
	if count > room || count > f.pages {
		return 0, damaged("a list of %d free pages in room for %d, of %d pages", count, room, f.pages)
	}
	return count, nil
}
