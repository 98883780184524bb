package boltindex

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/storage"
)

// pageFile gives the pages of bbolt's file, each compared with its sum when it is
// first used after the opening, or after it was written. It is safe for
// concurrent use.
type pageFile struct {
	file *os.File
	size int64 // of a page
	sums *sums

	now     atomic.Pointer[pageMap]
	growing sync.Mutex // guards maps, and now against two who change it
	maps    [][]byte   // all there were: a reader may still be in an earlier one
}

// pageMap is a map of the file, and which of its pages are as their sums say.
type pageMap struct {
	data    []byte
	checked []atomic.Uint64
}

func newPageFile(file *os.File, size int64, sums *sums) *pageFile {
	f := &pageFile{file: file, size: size, sums: sums}
	f.now.Store(&pageMap{})
	return f
}

// smallestMap is how far a map reaches at least, in bytes; the next is twice
// as long, so that all maps together are not longer than two of the last.
const smallestMap = 64 << 20

// reach has a map of so many pages, or none where the system has no room for it.
func (f *pageFile) reach(end uint64) *pageMap {
	f.growing.Lock()
	defer f.growing.Unlock()
	m := f.now.Load()
	need := int64(end) * f.size
	if need <= int64(len(m.data)) || end <= uint64(len(m.checked))*64 && len(m.data) == 0 {
		return m
	}
	length := int64(smallestMap)
	for length < need {
		length *= 2
	}
	next := &pageMap{checked: make([]atomic.Uint64, length/f.size/64+1)}
	for i := range m.checked {
		next.checked[i].Store(m.checked[i].Load()) // one that is set meanwhile is checked once more
	}
	if data, err := mapFile(f.file, length); err == nil {
		next.data = data
		f.maps = append(f.maps, data)
	}
	f.now.Store(next)
	if m.data != nil {
		release(m.data)
	}
	return next
}

// page is a page with its overflow, in the state that a transaction has left
// with so many pages. It is valid as long as the state is in use.
func (f *pageFile) page(id, txid, end uint64) (page, error) {
	if id < 2 || id >= end {
		return nil, fmt.Errorf("%w: page %d of %d", storage.ErrCorrupted, id, end)
	}
	m := f.now.Load()
	if uint64(len(m.checked))*64 <= id || len(m.data) > 0 && int64(len(m.data)) < int64(end)*f.size {
		m = f.reach(end)
	}
	bit := uint64(1) << (id % 64)
	checked := m.checked[id/64].Load()&bit != 0
	p, err := f.read(m, id, end)
	if err != nil || checked {
		return p, err
	}
	final, err := f.check(p, txid)
	if err != nil {
		return nil, err
	}
	if final {
		m.checked[id/64].Or(bit)
	}
	return p, nil
}

func (f *pageFile) read(m *pageMap, id, end uint64) (page, error) {
	if m.data == nil {
		return readPage(f.file, meta{pageSize: f.size, end: end}, id)
	}
	at := int64(id) * f.size
	p := page(m.data[at : at+f.size])
	if p.id() != id || id+p.overflow() >= end {
		return nil, misplaced(p, id)
	}
	return page(m.data[at : at+int64(p.overflow()+1)*f.size]), nil
}

// check compares a page with its sum after a transaction, and says whether it has
// one. One that has none is taken as it is.
func (f *pageFile) check(p page, txid uint64) (compared bool, err error) {
	got := sumOf(p).sum
	want, known, err := f.sums.of(p.id(), txid, got)
	if err != nil || want == got {
		return err == nil, err
	}
	if !known || want == 0 {
		return false, nil
	}
	return true, fmt.Errorf("%w: page %d of the index has checksum %08x, %s says %08x: rebuild the index ('mediabolt rebuild'), or restore it and its log from one backup, or remove %[4]s if %[6]s alone was replaced",
		storage.ErrCorrupted, p.id(), got, sumsName, want, fileName)
}

// forget has pages checked again that were written.
func (f *pageFile) forget(list []pageSum) {
	f.growing.Lock() // or reach could bring them back
	defer f.growing.Unlock()
	m := f.now.Load()
	for _, p := range list {
		if at := p.page / 64; at < uint64(len(m.checked)) {
			m.checked[at].And(^(uint64(1) << (p.page % 64)))
		}
	}
}

// close ends the maps. Nothing may read any more.
func (f *pageFile) close() error {
	var err error
	for _, m := range f.maps {
		err = errors.Join(err, unmap(m))
	}
	return err
}
