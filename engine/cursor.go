package engine

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Cursor is a place in a list, between two references; see Query.After. It is
// text that may be kept and passed on, in the URL-safe alphabet of base64, and
// tells nothing beyond the UUID of a reference and, in the order Soonest, its expiry.
//
// Its bytes are
//
//	0     1  version, 1
//	1     1  order: 'o' oldest, 'n' newest, 's' soonest first
//	2    16  UUID of the reference that the place is behind
//	18    8  soonest first alone: its expiry, microseconds since 1970, big-endian
//	      4  CRC-32C of all before, big-endian
type Cursor string

const (
	cursorVersion = 1
	cursorBody    = 2 + len(storage.UUID{})
	cursorTime    = 8
)

func newCursor(behind storage.Place, order Order) Cursor {
	c := append([]byte{cursorVersion, orderByte(order)}, behind.UUID[:]...)
	if order == Soonest {
		c = binary.BigEndian.AppendUint64(c, uint64(behind.At.UnixMicro()))
	}
	c = binary.BigEndian.AppendUint32(c, crc32.Checksum(c, castagnoli))
	return Cursor(base64.RawURLEncoding.EncodeToString(c))
}

func orderByte(o Order) byte {
	switch o {
	case Newest:
		return 'n'
	case Soonest:
		return 's'
	}
	return 'o'
}

// place is where a list in this order goes on, or ErrInvalidQuery. The time is set
// only where the order is that of expiry.
func (c Cursor) place(order Order) (behind storage.Place, err error) {
	invalid := func(why string) (storage.Place, error) {
		return storage.Place{}, fmt.Errorf("%w: cursor %.80q: %s", storage.ErrInvalidQuery, string(c), why)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(c))
	body := cursorBody
	if len(b) > 1 && b[1] == orderByte(Soonest) {
		body += cursorTime
	}
	switch {
	case err != nil || len(b) == 0:
		return invalid("is none that a list gave")
	case b[0] != cursorVersion:
		return invalid(fmt.Sprintf("version %d, this program knows %d", b[0], cursorVersion))
	case len(b) != body+crc32.Size, binary.BigEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli):
		return invalid("is cut short, or not as a list gave it")
	case b[1] != 'o' && b[1] != 'n' && b[1] != 's':
		return invalid("of an unknown order")
	case b[1] != orderByte(order):
		return invalid("of a list in another order")
	}
	copy(behind.UUID[:], b[2:])
	if order == Soonest {
		behind.At = time.UnixMicro(int64(binary.BigEndian.Uint64(b[cursorBody:]))).UTC()
	}
	switch {
	case behind.UUID.IsZero():
		return invalid("behind no entry")
	case order == Soonest && behind.At.IsZero():
		return invalid("behind an entry that never expires")
	case newCursor(behind, order) != c:
		return invalid("is not as a list gave it") // base64 skips line breaks
	}
	return behind, nil
}
