package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// The record of origins, .mediabolt/origins, says which reference the content of
// an old path became. It consists of entries of 40 bytes that are only appended:
//
//	kind    1 byte: 'o' an origin, 'b' an adoption begins, 'e' it has ended
//	origin  16 bytes, the first of the SHA-256 of the cleaned path
//	id      19 bytes, hash and UUID of the reference
//	crc     uint32, CRC-32C of what is before it
//
// Integers are little-endian; where there is no origin or ID there are zeros. The
// first entry is originsMagic in place of kind and origin. No path is in clear,
// so an ID that is erased is not left in here.
//
// # Crash safety
//
// The label AdoptedFrom, which is in the row of the reference and in its sidecar,
// is the truth, and the record its index. An entry is written after the reference
// is durable. 'b' is durable before the first reference of an adoption is stored,
// 'e' is written when all of its entries are durable. So where the last mark is
// 'b', or an entry is damaged, or the file is not there, entries may be missing:
// then a pass over all references makes the record anew, under another name that
// is renamed once it is durable. The second origins of a reference, and those of
// references that are deleted, are in the record alone.
const (
	originsName  = "origins"
	originsTemp  = "origins.tmp"
	originsMagic = "mborig\x00\x01"
	originEntry  = 40
	originBody   = originEntry - 4
)

const (
	markOrigin = 'o'
	markBegin  = 'b'
	markEnd    = 'e'
)

type originKey [16]byte

func keyOfOrigin(path string) (key originKey) {
	sum := sha256.Sum256([]byte(filepath.Clean(path)))
	copy(key[:], sum[:])
	return key
}

const originDigest = "sha256:"

// originLabel is a path as the label AdoptedFrom has it.
func originLabel(path string) string {
	label := filepath.Clean(path)
	if !utf8.ValidString(label) || label[0] == '"' || strings.HasPrefix(label, originDigest) {
		label = strconv.Quote(label)
	}
	if len(label) > storage.MaxLabelValueLength {
		sum := sha256.Sum256([]byte(filepath.Clean(path)))
		return originDigest + hex.EncodeToString(sum[:])
	}
	return label
}

// keyOfLabel is the key of the path of which originLabel made a label.
func keyOfLabel(label string) (key originKey, ok bool) {
	if digits, cut := strings.CutPrefix(label, originDigest); cut {
		sum, err := hex.DecodeString(digits)
		copy(key[:], sum)
		return key, err == nil && len(sum) == sha256.Size
	}
	if strings.HasPrefix(label, `"`) {
		path, err := strconv.Unquote(label)
		return keyOfOrigin(path), err == nil
	}
	return keyOfOrigin(label), label != ""
}

// origins is the record of origins of an open store.
type origins struct {
	turn chan struct{} // of capacity 1; full while an adoption is under way

	// mu guards the rest. It is held while the record is read, written or made
	// anew, and taken before the locks of the index.
	mu      sync.Mutex
	known   map[originKey]storage.ID // nil: not read yet
	size    int64                    // of the file, in whole entries
	pending []byte                   // entries that are not written yet
	err     error                    // why no entry can be written any more
}

func (o *origins) append(mark byte, key originKey, id storage.ID) {
	o.pending = appendOrigin(o.pending, mark, key, id)
}

func appendOrigin(b []byte, mark byte, key originKey, id storage.ID) []byte {
	begin := len(b)
	b = append(append(b, mark), key[:]...)
	b = append(append(b, id.Hash[:]...), id.UUID[:]...)
	return sealOrigin(b, begin)
}

func sealOrigin(b []byte, begin int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli))
}

func originsHeader() []byte {
	return sealOrigin(append([]byte(originsMagic), make([]byte, originBody-len(originsMagic))...), 0)
}

// writeOrigins appends what is pending and makes it durable. The caller holds mu
// and has read the record. After an error nothing more is written: what reached
// the disk is not known.
func (s *store) writeOrigins() error {
	o := &s.origins
	if o.err != nil || len(o.pending) == 0 {
		return o.err
	}
	f, err := s.ctl.OpenFile(originsName, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(o.pending, o.size)
		if err == nil && s.cfg.Sync != SyncNone {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		o.err = fmt.Errorf("write %s: %w: what was adopted since is recorded when the store is opened again", s.originsPath(), err)
		return o.err
	}
	o.size += int64(len(o.pending))
	o.pending = o.pending[:0]
	return nil
}

func (s *store) originsPath() string {
	return filepath.Join(s.cfg.BaseDir, blobs.ControlDir, originsName)
}

// openOrigins removes what a crash has left. The record is read when it is needed.
func (s *store) openOrigins() {
	s.origins.turn = make(chan struct{}, 1)
	if err := s.ctl.Remove(originsTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Logger.Warn("a file that a crash has left stays", "store", s.cfg.BaseDir, "path", originsTemp, "error", err)
	}
}

// readOrigins reads the record where that is still to do, and makes it anew where
// it may lack entries. The caller holds mu.
func (s *store) readOrigins(ctx context.Context) error {
	o := &s.origins
	if o.known != nil {
		return nil
	}
	known, size, whole, err := s.parseOrigins()
	if err != nil {
		return err
	}
	if !whole {
		if err := s.recallOrigins(ctx, known); err != nil {
			return err
		}
		if size, err = s.renewOrigins(known); err != nil {
			return fmt.Errorf("make %s anew: %w", s.originsPath(), err)
		}
	}
	o.known, o.size = known, size
	return nil
}

// parseOrigins reads the file. whole is false where entries may be missing.
func (s *store) parseOrigins() (known map[originKey]storage.ID, size int64, whole bool, err error) {
	known = map[originKey]storage.ID{}
	f, err := s.ctl.Open(originsName)
	if errors.Is(err, fs.ErrNotExist) {
		return known, 0, false, nil
	} else if err != nil {
		return nil, 0, false, err
	}
	defer func() { _ = f.Close() }() // was only read
	in, entry, damaged := bufio.NewReaderSize(f, 1<<16), make([]byte, originEntry), 0
	for ; ; size += originEntry {
		n, err := io.ReadFull(in, entry)
		if err == io.EOF {
			break
		} else if err == io.ErrUnexpectedEOF {
			whole = whole && n == 0
			damaged++
			break
		} else if err != nil {
			return nil, 0, false, fmt.Errorf("read %s: %w", s.originsPath(), err)
		}
		intact := binary.LittleEndian.Uint32(entry[originBody:]) == crc32.Checksum(entry[:originBody], castagnoli)
		switch {
		case !intact:
			damaged++
		case size == 0 && !bytes.Equal(entry, originsHeader()):
			return nil, 0, false, fmt.Errorf("%w: record of origins %s: first bytes %q, this program knows %q: use the mediabolt that wrote it, or a newer one",
				storage.ErrVersion, s.originsPath(), entry[:len(originsMagic)], originsMagic)
		case size == 0:
		case entry[0] == markOrigin:
			key, id := parseOrigin(entry)
			known[key] = id
		default:
			whole = entry[0] == markEnd
		}
	}
	if damaged > 0 {
		s.cfg.Logger.Warn("the record of what was adopted is damaged, and is made anew from the references", "path", s.originsPath(), "entries", damaged)
	}
	return known, size, whole && damaged == 0, nil
}

func parseOrigin(entry []byte) (key originKey, id storage.ID) {
	rest := entry[1+copy(key[:], entry[1:]):]
	copy(id.UUID[:], rest[copy(id.Hash[:], rest):])
	return key, id
}

// recallOrigins adds what the labels of all references say.
func (s *store) recallOrigins(ctx context.Context, known map[originKey]storage.ID) error {
	var after storage.UUID
	for more := true; more; {
		var page []storage.RefPair
		var err error
		page, after, more, err = s.index.Refs(ctx, storage.RefFilter{}, after, listPage)
		if err != nil {
			return err
		}
		for i := range page {
			key, ok := keyOfLabel(page[i].Ref.Metadata.Labels[AdoptedFrom])
			if !ok {
				continue
			}
			id, err := storage.ParseID(page[i].Blob.NameHash() + "-" + page[i].Ref.UUID.String())
			if err != nil {
				return fmt.Errorf("%w: blob %s: path %q has no name of a blob", storage.ErrCorrupted, page[i].Blob.Key, page[i].Blob.Path)
			}
			known[key] = id
		}
	}
	return nil
}

// renewOrigins writes the record anew and answers its size.
func (s *store) renewOrigins(known map[originKey]storage.ID) (int64, error) {
	f, err := s.ctl.OpenFile(originsTemp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, s.cfg.FileMode)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(f, 1<<16)
	_, err = out.Write(originsHeader())
	for key, id := range known {
		if err == nil {
			_, err = out.Write(appendOrigin(nil, markOrigin, key, id))
		}
	}
	if err == nil {
		_, err = out.Write(appendOrigin(nil, markEnd, originKey{}, storage.ID{}))
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil && s.cfg.Sync != SyncNone {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.ctl.Rename(originsTemp, originsName)
	}
	if err != nil {
		_ = s.ctl.Remove(originsTemp) // the next opening tries again
		return 0, err
	}
	if s.cfg.Sync != SyncNone {
		if err := syncDir(filepath.Join(s.cfg.BaseDir, blobs.ControlDir)); err != nil {
			return 0, err
		}
	}
	return int64(len(known)+2) * originEntry, nil
}
