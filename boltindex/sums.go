package boltindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// The file of sums has a checksum for every page of bbolt's file that is in use,
// for bbolt itself checks its meta pages alone. It consists of sectors, which a
// disk writes whole or not at all:
//
//	sector 0   magic 8 bytes, sumsMagic; transaction uint64; number of bbolt's
//	           file uint64; zeros; CRC-32C uint32 of what is before it
//	sector n   127 sums uint32, from page (n-1)*127 on; CRC-32C uint32 of the
//	           number of the sector, uint64, and the sums
//
// Integers are little-endian. A sum is the CRC-32C of a page with its overflow, 1
// in place of 0, and belongs to its first page; 0 is no sum. A damaged sector has
// none: its pages are taken as they are, and Verify says so.
//
// # Crash safety
//
// bbolt never writes to a page that the state before its transaction uses. So
// the sums of the pages that a transaction has written take the place of sums
// that this state does not need: they are written after its commit, synced, and
// only then does sector 0 name the transaction. What a transaction has written is
// what is reachable from its root and was in the free list of the state before,
// which is still in the file: Open finds it again when a crash came in between,
// in time in proportion to the transaction. The next transaction waits until it
// is done. Before Open names a state in sector 0 it makes that state durable: a killed
// process may have left its meta page in the kernel's memory alone.
//
// When the sums of an index are missing, or belong to another file or to a
// transaction that is neither the last nor the one before, they are made anew from pages that pass
// for whole, which reads all of them. That is also how a user mends them: by
// removing the file. Open does so for a sector that a write was cut short in.
const (
	sumsName   = "index.sums"
	nextSums   = "index.sums.next" // of the file that a compaction makes
	sumsMagic  = "mbsum\x00\x00\x01"
	sumSector  = 512
	sectorSums = sumSector/4 - 1
)

// sums is the file of sums, and in memory those that were added last.
type sums struct {
	file   *os.File
	path   string // when it is in its place, for messages
	number uint64 // of bbolt's file
	noSync bool
	log    *slog.Logger
	sector sync.RWMutex // of the file: one is not read while it is written

	mu      sync.Mutex
	settled sync.Cond         // pending is over
	pending bool              // a transaction is on its way, and then its sums
	known   uint64            // the last transaction with sums
	recent  map[uint64]uint32 // its sums
	written uint64            // the transaction that sector 0 names
	told    map[int64]bool    // damaged sectors that were logged

	behind bool // bbolt has opened the state before that of sector 0
}

// pageSum is the sum of one page.
type pageSum struct {
	page uint64
	sum  uint32
}

func sumOf(p page) pageSum { return pageSum{p.id(), max(1, crc32.Checksum(p, castagnoli))} }

// openSums opens the file of the sums of a file of bbolt's, which is made if there is
// none, and reads for which transaction it has sums.
func (x *Index) openSums(name string, number uint64, noSync bool) (_ *sums, err error) {
	f, err := x.root.OpenFile(name, os.O_RDWR|os.O_CREATE, x.mode)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(x.root.Name(), sumsName)
	s := &sums{file: f, path: path, number: number, noSync: noSync, log: x.log, told: map[int64]bool{}}
	s.settled.L = &s.mu
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	head := make([]byte, sumSector)
	if _, err = f.ReadAt(head, 0); err == io.EOF {
		err = nil
		if !noSync {
			err = x.syncDir()
		}
	}
	if txid, of := parseHead(head); of == number {
		s.written, s.known = txid, txid
	}
	return s, err
}

// parseHead is for which transaction of which file sector 0 has sums, for none where
// it is damaged.
func parseHead(head []byte) (txid, number uint64) {
	if string(head[:8]) != sumsMagic || sectorSum(0, head) != binary.LittleEndian.Uint32(head[sumSector-4:]) {
		return 0, 0
	}
	return binary.LittleEndian.Uint64(head[8:]), binary.LittleEndian.Uint64(head[16:])
}

// adoptSums gives the sums that a compaction has made their name, if the file of this
// number is the one that it has made; a crash has kept it from that. Others go. The
// caller has the lock of the file.
func (x *Index) adoptSums(number uint64) error {
	f, err := x.root.Open(nextSums)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	head := make([]byte, sumSector)
	_, err = f.ReadAt(head, 0)
	if err := errors.Join(damageAtEnd(err), f.Close()); err != nil && !errors.Is(err, storage.ErrCorrupted) {
		return err
	}
	if txid, of := parseHead(head); err == nil && txid > 0 && of == number {
		return x.root.Rename(nextSums, sumsName)
	}
	return x.root.Remove(nextSums)
}

// sectorSum is the checksum of a sector. That of sector 0 is without a number.
func sectorSum(n int64, sector []byte) uint32 {
	var sum uint32
	if n > 0 {
		sum = crc32.Checksum(binary.LittleEndian.AppendUint64(nil, uint64(n)), castagnoli)
	}
	return crc32.Update(sum, castagnoli, sector[:sumSector-4])
}

// of is the sum of a page in the state that a transaction has left, 0 where it
// has none, and whether all of that state's are known. A page whose sum is not as
// hoped may have been written by a transaction that is on its way: that is waited
// for, in which nothing waits for a reader.
func (s *sums) of(id, txid uint64, hoped uint32) (sum uint32, known bool, err error) {
	for {
		s.mu.Lock()
		sum, recent := s.recent[id]
		known, pending := s.known >= txid, s.pending
		s.mu.Unlock()
		if !recent {
			sector, err := s.read(sectorOf(id))
			if err != nil {
				return 0, false, err
			}
			sum = binary.LittleEndian.Uint32(sector[placeOf(id):])
		}
		if sum == hoped || known || !pending {
			return sum, known, nil
		}
		s.wait(txid)
	}
}

// wait returns when the sums after a transaction are known, or are not to be had
// for now.
func (s *sums) wait(txid uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.known < txid && s.pending {
		s.settled.Wait()
	}
}

func sectorOf(id uint64) int64 { return 1 + int64(id/sectorSums) }
func placeOf(id uint64) int    { return 4 * int(id%sectorSums) }

// read reads a sector, zeros where it is damaged or the file ends before it.
func (s *sums) read(n int64) ([]byte, error) {
	s.sector.RLock()
	defer s.sector.RUnlock()
	sector := make([]byte, sumSector)
	if _, err := s.file.ReadAt(sector, n*sumSector); err != nil && err != io.EOF {
		return nil, err
	}
	want := binary.LittleEndian.Uint32(sector[sumSector-4:])
	if got := sectorSum(n, sector); got != want && !isZero(sector) {
		s.tell(n)
		clear(sector)
	}
	return sector, nil
}

// tell logs that a sector is damaged, once: every use of its pages comes by.
func (s *sums) tell(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told[n] {
		s.told[n] = true
		s.log.Error("sums of pages are damaged: remove the file while the store is closed, and the next opening makes it anew",
			"file", s.path, "sector", n)
	}
}

func isZero(data []byte) bool {
	return !slices.ContainsFunc(data, func(b byte) bool { return b != 0 })
}

// take has the sums of a transaction from now on.
func (s *sums) take(txid uint64, list []pageSum) {
	recent := make(map[uint64]uint32, len(list))
	for _, p := range list {
		recent[p.page] = p.sum
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent, s.known, s.pending = recent, txid, false
	s.settled.Broadcast()
}

// expect has readers of the next transaction wait for its sums, until take or
// settle.
func (s *sums) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = true
}

// settle ends the wait, whether there are sums or not.
func (s *sums) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	s.settled.Broadcast()
}

// write makes the sums of a transaction durable: those that it has changed, or
// all there are.
func (s *sums) write(txid uint64, list []pageSum, all bool) error {
	slices.SortFunc(list, func(a, b pageSum) int { return int(int64(a.page) - int64(b.page)) })
	for len(list) > 0 {
		n := sectorOf(list[0].page)
		sector := make([]byte, sumSector)
		if !all {
			var err error
			if sector, err = s.read(n); err != nil {
				return err
			}
		}
		for len(list) > 0 && sectorOf(list[0].page) == n {
			binary.LittleEndian.PutUint32(sector[placeOf(list[0].page):], list[0].sum)
			list = list[1:]
		}
		if err := s.put(n, sector); err != nil {
			return err
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	return s.name(txid)
}

// name says durably for which transaction the file has sums.
func (s *sums) name(txid uint64) error {
	head := make([]byte, sumSector)
	copy(head, sumsMagic)
	binary.LittleEndian.PutUint64(head[8:], txid)
	binary.LittleEndian.PutUint64(head[16:], s.number)
	if err := errors.Join(s.put(0, head), s.sync()); err != nil {
		return err
	}
	s.written = txid
	return nil
}

func (s *sums) put(n int64, sector []byte) error {
	s.sector.Lock()
	defer s.sector.Unlock()
	binary.LittleEndian.PutUint32(sector[sumSector-4:], sectorSum(n, sector))
	_, err := s.file.WriteAt(sector, n*sumSector)
	return err
}

func (s *sums) sync() error {
	if s.noSync {
		return nil
	}
	return datasync(s.file)
}

// sum brings the sums up to the state of the file. The caller holds flushing,
// or is opening.
func (f *boltFile) sum() error { return f.sumNow(false) }

// sumNow is sum, by an opening or not.
func (f *boltFile) sumNow(opening bool) error {
	defer f.pages.sums.settle()
	if err := f.sumLast(opening); err != nil {
		return fmt.Errorf("%s: %w", sumsName, err)
	}
	return nil
}

// sumFound is sum for the state that an opening finds. That is made durable first: sums
// that name a state which a power cut takes back make the one before it look damaged.
func (f *boltFile) sumFound(now meta) error {
	s := f.pages.sums
	if s.written >= now.txid {
		return f.sum()
	}
	if !s.noSync {
		if err := errors.Join(renew(f.file, int64(now.txid%2)*now.pageSize, now.pageSize), datasync(f.file)); err != nil {
			return err
		}
	}
	return f.sumNow(true)
}

// mendTorn adds to the sums of a transaction those of all pages in sectors that a write of
// these sums was cut short in, as on a full disk: such a sector is damaged while sector 0
// still names the transaction before.
func (f *boltFile) mendTorn(now meta, old func(uint64) bool, list []pageSum) ([]pageSum, error) {
	torn := map[int64]bool{}
	for _, p := range list {
		n := sectorOf(p.page)
		if _, looked := torn[n]; looked {
			continue
		}
		var err error
		if torn[n], err = f.pages.sums.damaged(n); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(slices.Collect(maps.Values(torn)), true) {
		return list, nil
	}
	all, err := f.sumPages(now, nil)
	return slices.DeleteFunc(all, func(p pageSum) bool { return old(p.page) && !torn[sectorOf(p.page)] }), err
}

// damaged says whether a sector is neither whole nor zeros.
func (s *sums) damaged(n int64) (bool, error) {
	sector := make([]byte, sumSector)
	if _, err := s.file.ReadAt(sector, n*sumSector); err != nil && err != io.EOF {
		return false, err
	}
	return !isZero(sector) && sectorSum(n, sector) != binary.LittleEndian.Uint32(sector[sumSector-4:]), nil
}

// firstTxid is the transaction that has made an index.
const firstTxid = 2

func (f *boltFile) sumLast(opening bool) (err error) {
	defer guard(&err)
	now, before, err := readMetas(f.file)
	if err != nil {
		return err
	}
	s := f.pages.sums
	switch {
	case s.written == now.txid:
		return nil
	case s.written == now.txid+1:
		// No sum of this state has been overwritten.
		f.log.Warn("the last meta page of the index is damaged", "index", f.path, "transaction", s.written)
		s.take(now.txid, nil)
		s.behind = true
		return nil
	case s.written == before.txid && before != (meta{}):
		old, err := f.inUse(before)
		if err != nil {
			return err
		}
		list, err := f.sumPages(now, old)
		if err != nil {
			return err
		}
		if opening {
			if list, err = f.mendTorn(now, old, list); err != nil {
				return err
			}
		}
		s.take(now.txid, list)
		f.pages.forget(list)
		return s.write(now.txid, list, false)
	}
	if now.txid != firstTxid {
		f.log.Warn("the index has no sums of its pages, they are made anew", "index", f.path, "transaction", now.txid)
	}
	return f.sumAll(now)
}

// sumAll makes the sums of all pages of a state anew.
func (f *boltFile) sumAll(now meta) error {
	s := f.pages.sums
	s.take(0, nil) // what the file has is of something else
	list, err := f.sumPages(now, nil)
	if err != nil {
		return err
	}
	if err := s.write(now.txid, list, true); err != nil {
		return err
	}
	s.take(now.txid, nil)
	f.pages.forget(list)
	return nil
}

// inUse tells which pages a state has in use, from its list of free ones.
func (f *boltFile) inUse(m meta) (func(uint64) bool, error) {
	p, err := readPage(f.file, m, m.free)
	if err == nil {
		_, err = f.pages.check(p, m.txid)
	}
	if err != nil {
		return nil, fmt.Errorf("free list of the state before: %w", err)
	}
	free, err := freePages(p, m.end)
	return func(id uint64) bool { return id < m.end && !isFree(free, id) }, err
}

// sumPages is the sums of the pages of a state that are not old.
func (f *boltFile) sumPages(now meta, old func(uint64) bool) (list []pageSum, err error) {
	w := newPageWalk(f.file, now, func(p page) error {
		list = append(list, sumOf(p))
		return nil
	})
	w.old = old
	return list, w.run()
}
