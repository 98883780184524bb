package engine

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/mediabolt/mediabolt/storage"
)

// Cursor is a place in a list, between two references; see Query.After. It is
// text that may be kept and passed on, in the URL-safe alphabet of base64, and
// tells nothing beyond the UUID of a reference.
//
// Its bytes are
//
//	0     1  version, 1
//	1     1  order: 'o' oldest, 'n' newest first
//	2    16  UUID of the reference that the place is behind
//	18    4  CRC-32C of all before, big-endian
type Cursor string

const (
	cursorVersion = 1
	cursorBody    = 2 + len(storage.UUID{})
	cursorLength  = cursorBody + crc32.Size
)

func newCursor(behind storage.UUID, order Order) Cursor {
	c := append([]byte{cursorVersion, orderByte(order)}, behind[:]...)
	c = binary.BigEndian.AppendUint32(c, crc32.Checksum(c, castagnoli))
	return Cursor(base64.RawURLEncoding.EncodeToString(c))
}

func orderByte(o Order) byte {
	if o == Newest {
		return 'n'
	}
	return 'o'
}

// place is the UUID that a list in this order goes on behind, or ErrInvalidQuery.
func (c Cursor) place(order Order) (behind storage.UUID, err error) {
	invalid := func(why string) (storage.UUID, error) {
		return storage.UUID{}, fmt.Errorf("%w: cursor %.80q: %s", storage.ErrInvalidQuery, string(c), why)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(c))
	switch {
	case err != nil || len(b) == 0:
		return invalid("is none that a list gave")
	case b[0] != cursorVersion:
		return invalid(fmt.Sprintf("version %d, this program knows %d", b[0], cursorVersion))
	case len(b) != cursorLength, binary.BigEndian.Uint32(b[cursorBody:]) != crc32.Checksum(b[:cursorBody], castagnoli):
		return invalid("is cut short, or not as a list gave it")
	case b[1] != 'o' && b[1] != 'n':
		return invalid("of an unknown order")
	case b[1] != orderByte(order):
		return invalid("of a list in the other order")
	}
	copy(behind[:], b[2:])
	switch {
	case behind.IsZero():
		return invalid("behind no entry")
	case newCursor(behind, order) != c:
		return invalid("is not as a list gave it") // base64 skips line breaks
	}
	return behind, nil
}
