package boltindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/storage"
)

// Remains is what the log of an index tells of its rows: the newest changes, as
// far back as its records follow each other. Every row in it is as it was when
// the index was last used.
type Remains struct {
	Blobs   []storage.BlobRow // that are there
	Refs    []storage.RefRow  // that are there
	Ended   []storage.UUID    // references that are not there any more
	Mirrors []storage.Mirror  // debt
	Unlinks []storage.Unlink  // debt
}

// Salvage reads the log in a directory without the index that it belongs to, be
// that damaged or gone. Nothing may have the index open. Nothing is written.
// Errors: ErrNotFound where the log has no record, ErrCorrupted where a record is
// damaged, for then what followed on what cannot be told, ErrVersion, ErrIO.
func Salvage(root *os.Root) (*Remains, error) {
	runs, err := salvageRuns(root)
	if err != nil {
		return nil, fmt.Errorf("log in %s: %w", root.Name(), storage.Classify(err))
	}
	rows := newTable()
	for _, run := range runs {
		for _, r := range run.records {
			if err := decodeTable(r.body, rows); err != nil {
				return nil, fmt.Errorf("log %s in %s: record %d: %w", logNames[run.segment], root.Name(), r.number, err)
			}
		}
	}
	if rows.Len() == 0 {
		return nil, fmt.Errorf("%w: the log in %s has no record", storage.ErrNotFound, root.Name())
	}
	return remainsOf(rows)
}

// salvageRuns reads both segments and takes what follows on each other.
func salvageRuns(root *os.Root) (runs []run, err error) {
	var store uuid.UUID
	var without []*segment // a first record
	last := uint64(0)
	for i, name := range logNames {
		s, first, err := salvageSegment(root, name)
		if s == nil {
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		defer func() { _ = s.file.Close() }() // was only read
		l := &changeLog{store: first.store}
		if first.number == 0 {
			without = append(without, s)
			continue
		}
		if len(runs) > 0 && first.store != store {
			return nil, fmt.Errorf("%w: the segments are of the stores %s and %s", storage.ErrCorrupted, store, first.store)
		}
		records, err := l.records(s, first.number-1)
		if err != nil {
			return nil, err
		}
		if len(records) == 0 { // cut short by a crash, or damaged
			without = append(without, s)
			continue
		}
		store, last = first.store, max(last, records[len(records)-1].number)
		runs = append(runs, run{i, records})
	}
	for _, s := range without {
		if _, err := (&changeLog{store: store}).records(s, last); err != nil {
			return nil, err
		}
	}
	return newestRuns(runs), nil
}

// newestRuns are the runs that end with the last record, the older first. One that
// does not lead up to the other is of an earlier use of its segment.
func newestRuns(runs []run) []run {
	if len(runs) < 2 {
		return runs
	}
	end := func(r run) uint64 { return r.records[len(r.records)-1].number }
	older, newer := runs[0], runs[1]
	if end(older) > end(newer) {
		older, newer = newer, older
	}
	if end(older)+1 != newer.records[0].number {
		return []run{newer}
	}
	return []run{older, newer}
}

// firstRecord is what the header of the first record of a segment says; number is
// 0 where there is none.
type firstRecord struct {
	store  uuid.UUID
	number uint64
}

// salvageSegment opens a segment, nil where it is missing or too short for a
// record.
func salvageSegment(root *os.Root, name string) (s *segment, first firstRecord, err error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, first, nil
	} else if err != nil {
		return nil, first, err
	}
	header := make([]byte, logHeader)
	info, err := f.Stat()
	if err == nil && info.Size() > salvageMax {
		err = fmt.Errorf("%w: %d bytes", storage.ErrCorrupted, info.Size())
	}
	if err == nil && info.Size() >= logHeader {
		_, err = f.ReadAt(header, 0)
	}
	if err != nil || info.Size() < logHeader {
		return nil, first, errors.Join(err, f.Close())
	}
	if string(header[:8]) == logMagic {
		first = firstRecord{uuid.UUID(header[8:24]), binary.LittleEndian.Uint64(header[24:])}
	}
	return &segment{file: f, name: name, size: info.Size()}, first, nil
}

// salvageMax bounds a segment that is read into memory, in bytes: a group that does
// not fit makes one longer than segmentMax, but not by that much.
const salvageMax = 32 * segmentMax

// remainsOf reads the rows of a log.
func remainsOf(rows *table) (*Remains, error) {
	r := &Remains{}
	var err error
	rows.Scan(func(k string, value []byte) bool {
		err = r.add(bucket(k[0]), []byte(k[1:]), value)
		return err == nil
	})
	return r, err
}

func (r *Remains) add(b bucket, key, value []byte) error {
	switch {
	case b == bucketRefs && value == nil && len(key) == len(storage.UUID{}):
		r.Ended = append(r.Ended, storage.UUID(key))
	case value == nil:
	case b == bucketRefs && len(key) == len(storage.UUID{}):
		ref, err := decodeRef(storage.UUID(key), value)
		r.Refs = append(r.Refs, ref)
		return err
	case b == bucketBlobs:
		blob, err := decodeBlob(storage.BlobKey(key), value)
		r.Blobs = append(r.Blobs, blob)
		return err
	case b == bucketMirrors:
		m, err := storage.ParseMirror(key, storage.BlobKey(value))
		r.Mirrors = append(r.Mirrors, m)
		return err
	case b == bucketUnlinks:
		r.Unlinks = append(r.Unlinks, storage.Unlink{Path: string(key)})
	}
	return nil
}
