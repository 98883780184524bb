package boltindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/storage"
)

// A record of the log is a header and the changed rows of one group, filled up
// with zeros to whole blocks. Every block is written once between two uses of
// its segment, so that a write cut short never harms a record before it:
//
//	magic   8 bytes, logMagic
//	store   UUID, 16 bytes
//	number  uint64, one more than the record's before, in either segment
//	length  uint32, of the body in bytes
//	crc     uint32, CRC-32C of the header before it and of the body
//	body    the rows (codec.go)
//
// Integers are little-endian. A segment holds records from its beginning on;
// what follows the last is of an earlier use, or was being written when the
// process ended.
const (
	logMagic  = "mblog\x00\x00\x01"
	logHeader = 8 + 16 + 8 + 4 + 4
	logBlock  = 4096
)

// segmentMin is the length of a new segment, segmentMax the one up to which it
// grows when a group does not fit, in bytes. A segment is written with zeros
// first: an overwritten block is durable without a commit of the filesystem's
// journal. What is in segments is in memory too, and is read by Open.
const (
	segmentMin = 64 << 10
	segmentMax = 8 << 20
)

// keptRecord bounds the buffer that is kept for the next record, in bytes.
const keptRecord = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// changeLog is the log: two segments in turn.
type changeLog struct {
	store    uuid.UUID
	noSync   bool
	segments [2]*segment
	active   int
	number   uint64 // of the last record
	written  uint64 // bytes of records since the opening
	buffer   []byte // of the last record, to be used again
}

type segment struct {
	file *os.File
	name string
	size int64 // of the file
	end  int64 // of its last record
}

// logRecord is a record that was read.
type logRecord struct {
	number uint64
	body   []byte
	end    int64 // where the next one begins
}

// openLog opens the segments, and makes those that are missing.
func (x *Index) openLog(noSync bool) (*changeLog, error) {
	l := &changeLog{store: x.storeID, noSync: noSync}
	for i, name := range logNames {
		s, err := x.openSegment(name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("log %s: %w", name, err), l.close())
		}
		l.segments[i] = s
	}
	return l, nil
}

func (x *Index) openSegment(name string) (_ *segment, err error) {
	f, err := x.root.OpenFile(name, os.O_RDWR, x.mode)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = x.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, x.mode)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &segment{file: f, name: name, size: info.Size()}
	if s.size < segmentMin { // new, or its maker did not get further
		if err := s.grow(segmentMin); err != nil {
			return nil, err
		}
		return s, errors.Join(f.Sync(), x.syncDir())
	}
	return s, nil
}

func (l *changeLog) close() error {
	var err error
	for _, s := range l.segments {
		if s != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

// fits says whether the active segment has room for a record of that many
// bytes, after it has grown as far as it may. A segment without records takes
// one of any length.
func (l *changeLog) fits(record int) (bool, error) {
	s := l.segments[l.active]
	need := s.end + wholeBlocks(record)
	switch {
	case need <= s.size:
		return true, nil
	case need > segmentMax && s.end > 0:
		return false, nil
	}
	if err := s.grow(max(need, min(2*s.size, segmentMax))); err != nil {
		if s.end > 0 && isFull(err) {
			return false, nil // the other one may be long enough
		}
		return false, fmt.Errorf("log %s: %w", s.name, err)
	}
	return true, nil
}

func wholeBlocks(n int) int64 { return (int64(n) + logBlock - 1) / logBlock * logBlock }

// grow makes a segment longer. After an error it is as long as before.
func (s *segment) grow(size int64) error {
	zeros := make([]byte, size-s.size)
	if _, err := s.file.WriteAt(zeros, s.size); err != nil {
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.size = size
	return nil
}

// record is the record of a group's changes. It is good until the next call.
func (l *changeLog) record(changes *table) []byte {
	record := append(l.buffer[:0], make([]byte, logHeader)...)
	record = appendTable(record, changes)
	length := len(record) - logHeader
	copy(record, logMagic)
	copy(record[8:], l.store[:])
	binary.LittleEndian.PutUint64(record[24:], l.number+1)
	binary.LittleEndian.PutUint32(record[32:], uint32(length))
	binary.LittleEndian.PutUint32(record[36:], recordSum(record[:logHeader], record[logHeader:]))
	record = append(record, make([]byte, int(wholeBlocks(len(record)))-len(record))...)
	if l.buffer = record; cap(record) > keptRecord {
		l.buffer = nil
	}
	return record
}

// append writes a record, which must fit, and makes it durable. After an error
// it is certain that there is no such record, except after ErrInDoubt.
func (l *changeLog) append(record []byte) error {
	s := l.segments[l.active]
	if err := l.write(s, record); err != nil {
		err = fmt.Errorf("log %s: %w", s.name, err)
		// Blocks written anew and synced hold whatever came of the first sync.
		if void := l.write(s, make([]byte, logBlock)); void != nil {
			return fmt.Errorf("%w: %w", storage.ErrInDoubt, errors.Join(err, void))
		}
		return err
	}
	s.end += int64(len(record))
	l.number++
	l.written += uint64(len(record))
	return nil
}

func (l *changeLog) write(s *segment, data []byte) error {
	if _, err := s.file.WriteAt(data, s.end); err != nil {
		return err
	}
	return l.sync(s)
}

func (l *changeLog) sync(s *segment) error {
	if l.noSync {
		return nil
	}
	return datasync(s.file)
}

// recordSum is the checksum of a record.
func recordSum(header, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:36], castagnoli), castagnoli, body)
}

// turn makes the other segment the active one. Its records are in bbolt.
func (l *changeLog) turn() {
	l.active = 1 - l.active
	l.segments[l.active].end = 0
}

// records reads those of a segment that follow the number applied, oldest
// first. Errors: ErrCorrupted where one is damaged that was durable, ErrIO.
func (l *changeLog) records(s *segment, applied uint64) ([]logRecord, error) {
	data := make([]byte, s.size)
	if _, err := io.ReadFull(io.NewSectionReader(s.file, 0, s.size), data); err != nil {
		return nil, fmt.Errorf("log %s: %w", s.name, err)
	}
	var list []logRecord
	last := applied
	at := int64(0)
	for {
		r, there, err := l.read(data, at)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", s.name, err)
		}
		if !there || at > 0 && r.number != last+1 {
			break
		}
		last, at = r.number, r.end
		if r.number > applied {
			list = append(list, r)
		}
	}
	// A group begins when the one before it is durable: whole records behind one
	// that is not mean damage, not a crash.
	for behind := at + logBlock; behind < s.size; behind += logBlock {
		if r, there, err := l.read(data, behind); err == nil && there && r.number > max(last, applied) {
			return nil, fmt.Errorf("%w: log %s: record %d at byte %d is damaged, record %d follows it",
				storage.ErrCorrupted, s.name, last+1, at, r.number)
		}
	}
	return list, nil
}

// read is the record at a position; there is false where there is none, or
// not a whole one.
func (l *changeLog) read(data []byte, at int64) (r logRecord, there bool, err error) {
	if at+logHeader > int64(len(data)) || string(data[at:at+8]) != logMagic {
		return r, false, nil
	}
	header := data[at : at+logHeader]
	length := int64(binary.LittleEndian.Uint32(header[32:]))
	if at+logHeader+length > int64(len(data)) {
		return r, false, nil
	}
	r.body = data[at+logHeader : at+logHeader+length]
	if recordSum(header, r.body) != binary.LittleEndian.Uint32(header[36:]) {
		return r, false, nil
	}
	if store := uuid.UUID(header[8:24]); store != l.store {
		return r, false, fmt.Errorf("%w: it belongs to store %s, the index to %s: put the log and the index of one store together",
			storage.ErrCorrupted, store, l.store)
	}
	r.number = binary.LittleEndian.Uint64(header[24:])
	r.end = at + wholeBlocks(int(logHeader+length))
	return r, true, nil
}
