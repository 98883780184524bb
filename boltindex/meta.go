package boltindex

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"github.com/mediabolt/mediabolt/storage"
)

// A meta page of bbolt (its internal/common/meta.go), behind the page header:
//
//	magic uint32, version uint32, page size uint32, flags uint32,
//	root page uint64, sequence uint64 (which bbolt leaves as it is), free list's page uint64,
//	number of pages uint64, transaction uint64,
//	FNV-1a 64 of what is before it
//
// Transactions take turns in pages 0 and 1: the other one is that of the
// transaction before, until the next writes it over.
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaLength  = 64
)

// meta is a state of the index: what one transaction of bbolt has left.
type meta struct {
	pageSize int64
	root     uint64
	free     uint64 // page of the list of free pages
	end      uint64 // number of pages
	txid     uint64
	number   uint64 // of the file (compact.go)
}

// parseMeta reads a meta page, and says whether it is whole.
func parseMeta(page []byte) (m meta, ok bool) {
	p := page[pageHeader:]
	field := func(at int) uint64 { return binary.NativeEndian.Uint64(p[at:]) }
	if binary.NativeEndian.Uint32(p) != metaMagic || binary.NativeEndian.Uint32(p[4:]) != metaVersion {
		return meta{}, false
	}
	sum := fnv.New64a()
	_, _ = sum.Write(p[:metaLength-8]) // never fails
	if sum.Sum64() != field(metaLength-8) {
		return meta{}, false
	}
	m = meta{pageSize: int64(binary.NativeEndian.Uint32(p[8:])), root: field(16), free: field(32), end: field(40), txid: field(48), number: field(24)}
	return m, m.pageSize >= pageHeader+metaLength
}

// setNumber gives a file its number, in both meta pages.
func setNumber(file *os.File, number uint64) error {
	now, _, err := readMetas(file)
	if err != nil {
		return err
	}
	page := make([]byte, pageHeader+metaLength)
	for at := range int64(2) {
		if _, err := file.ReadAt(page, at*now.pageSize); err != nil {
			return err
		}
		p := page[pageHeader:]
		binary.NativeEndian.PutUint64(p[24:], number)
		sum := fnv.New64a()
		_, _ = sum.Write(p[:metaLength-8]) // never fails
		binary.NativeEndian.PutUint64(p[metaLength-8:], sum.Sum64())
		if _, err := file.WriteAt(page, at*now.pageSize); err != nil {
			return err
		}
	}
	return nil
}

// readMetas is the state of an index file and the one before it, of which the
// meta page may be damaged or, in a new file, missing. Then there is none.
func readMetas(file io.ReaderAt) (now, before meta, err error) {
	// Where the second page begins is in the first, or to be tried: bbolt
	// does the same.
	at := func(offset int64) (meta, bool) {
		page := make([]byte, pageHeader+metaLength)
		if _, e := file.ReadAt(page, offset); e != nil {
			if e != io.EOF { // a page that cannot be read now may be whole
				err = fmt.Errorf("meta page: %w", e)
			}
			return meta{}, false
		}
		return parseMeta(page)
	}
	first, ok := at(0)
	if ok {
		now = first
		before, _ = at(first.pageSize)
	}
	const smallest, largest = 1 << 10, 1 << 24 // pages that bbolt tries
	for size := int64(smallest); !ok && size <= largest; size *= 2 {
		now, ok = at(size)
	}
	if err != nil {
		return meta{}, meta{}, err
	}
	if !ok {
		return meta{}, meta{}, fmt.Errorf("%w: both meta pages are damaged", storage.ErrCorrupted)
	}
	if before.txid > now.txid {
		now, before = before, now
	}
	if before.txid+1 != now.txid {
		before = meta{}
	}
	return now, before, nil
}
