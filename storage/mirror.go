package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Mirror is what a committed transaction owes to a sidecar: one line, or all of it.
type Mirror struct {
	UUID    UUID
	Deleted bool // a tombstone, not an addition
	// Whole is the whole sidecar, which a blob needs that got another path.
	Whole bool
	// Revision of the reference's row that an addition tells of, at the least.
	Revision uint32
	Blob     BlobKey // whose sidecar
}

// WholeMirror is what the sidecar of a blob is owed that got its path: another than
// for any other path. There is none where the path is not named after a reference.
func WholeMirror(b *BlobRow) (m Mirror, named bool) {
	founder, named := b.Founder()
	return Mirror{UUID: founder, Whole: true, Revision: crc32.ChecksumIEEE([]byte(b.Path)), Blob: b.Key}, named
}

// Kinds of Mirror, in their keys.
const (
	mirrorAdded   = '+'
	mirrorDeleted = '-'
	mirrorWhole   = '='
)

// Key is the key of m in an index: the UUID, a byte for the kind, and the revision,
// big-endian, where it is not 0.
func (m *Mirror) Key() []byte {
	kind := byte(mirrorAdded)
	switch {
	case m.Deleted:
		kind = mirrorDeleted
	case m.Whole:
		kind = mirrorWhole
	}
	key := append(m.UUID[:len(m.UUID):len(m.UUID)], kind)
	if m.Revision > 0 {
		key = binary.BigEndian.AppendUint32(key, m.Revision)
	}
	return key
}

// ParseMirror is the Mirror of a key and a blob, or ErrCorrupted.
func ParseMirror(key []byte, blob BlobKey) (Mirror, error) {
	m := Mirror{Blob: blob}
	if n := len(key); (n == len(m.UUID)+1 || n == len(m.UUID)+5) && blob.Valid() {
		copy(m.UUID[:], key)
		m.Deleted, m.Whole = key[16] == mirrorDeleted, key[16] == mirrorWhole
		if n > len(m.UUID)+1 {
			m.Revision = binary.BigEndian.Uint32(key[17:])
		}
		if string(m.Key()) == string(key) {
			return m, nil
		}
	}
	return m, fmt.Errorf("%w: mirror row %x of blob %q", ErrCorrupted, key, blob)
}
