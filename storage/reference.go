package storage

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// StorageReference names one stored piece of media. Only the ID is trusted
// when a reference comes back, so one made of the ID alone works.
type StorageReference struct {
	// ID is "{hash6}-{short uuid}", as ID.String prints it.
	ID string `json:"id"`
	// Backend is the kind of store: "file".
	Backend string `json:"backend"`
	// Metadata has at least "path" (relative to the base directory, with
	// forward slashes), "org" (the OrganizationMode), "size" (bytes, decimal)
	// and, where it is known, "sha256" (hexadecimal); "converted_from" is the MIME
	// type of content that was converted when it was stored.
	Metadata map[string]string `json:"metadata,omitempty"`
	// CreatedAt is MediaMetadata.CreatedAt, in UTC, to the microsecond.
	CreatedAt time.Time `json:"created_at"`
}

// UUID is the 16 bytes of a UUID version 7 (RFC 9562), whose byte order is its
// order in time.
type UUID [16]byte

// shortAlphabet is lower-case Crockford base32: in order of its values, safe
// where file names ignore case, without i, l, o and u.
const shortAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var shortEncoding = base32.NewEncoding(shortAlphabet).WithPadding(base32.NoPadding)

// shortUUIDLength is 128 bits in base32.
const shortUUIDLength = 26

// IsZero says whether the UUID is that of no reference.
func (u UUID) IsZero() bool { return u == UUID{} }

// String is the UUID in 26 characters that sort like its bytes.
func (u UUID) String() string { return shortEncoding.EncodeToString(u[:]) }

// Time is the moment that is in the UUID, to 256 nanoseconds: 48 bits of
// milliseconds and 12 of a fraction (RFC 9562, section 6.2, method 3).
func (u UUID) Time() time.Time {
	head := binary.BigEndian.Uint64(u[:8])
	// UUIDs that were made faster than they can tell apart count on.
	rest := min(time.Duration(head&0xfff)<<fractionShift, time.Millisecond-1)
	return time.UnixMilli(int64(head >> 16)).Add(rest).UTC()
}

// UUIDAt is a bound for UUIDs of references: those whose Time is not before t are
// greater, all others smaller.
func UUIDAt(t time.Time) (u UUID) {
	milli, rest := t.UnixMilli(), t.Nanosecond()%int(time.Millisecond)
	switch {
	case milli < 0:
		return u
	case milli > maxMilli:
		return UUID(bytes.Repeat([]byte{0xff}, len(u)))
	}
	fraction := (rest + 1<<fractionShift - 1) >> fractionShift
	binary.BigEndian.PutUint64(u[:], uint64(milli)<<16|0x7000|uint64(fraction))
	return u
}

// fractionShift makes of nanoseconds below a millisecond what a UUID has of them.
const fractionShift = 8

// maxMilli is the last millisecond that a UUID has room for, in the year 10889.
const maxMilli = 1<<48 - 1

// parseUUID is the inverse of String, and accepts nothing else.
func parseUUID(s string) (UUID, bool) {
	var u UUID
	if len(s) != shortUUIDLength {
		return u, false
	}
	// 26 characters carry 130 bits; only the spelling with zeros in the
	// last two is canonical, so that one reference has one ID.
	b, err := shortEncoding.DecodeString(s)
	if err != nil || len(b) != len(u) || shortEncoding.EncodeToString(b) != s {
		return u, false
	}
	copy(u[:], b)
	return u, true
}

// ID is the parsed form of StorageReference.ID.
type ID struct {
	Hash [3]byte // the first bytes of the blob's digest, random without dedup
	UUID UUID
}

// String is "{hash6}-{short uuid}": 33 characters.
func (id ID) String() string {
	var s [7 + shortUUIDLength]byte // every Store asks several times, so with one allocation
	hex.Encode(s[:6], id.Hash[:])
	s[6] = '-'
	shortEncoding.Encode(s[7:], id.UUID[:])
	return string(s[:])
}

// ParseID reads what ID.String prints and answers ErrInvalidRef for anything
// else.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) == 7+shortUUIDLength && s[6] == '-' {
		hash, err := hex.DecodeString(s[:6])
		u, ok := parseUUID(s[7:])
		if err == nil && ok && hex.EncodeToString(hash) == s[:6] {
			copy(id.Hash[:], hash)
			id.UUID = u
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("%w: ID %.60q: want 6 hexadecimal digits, a dash and %d characters of %s",
		ErrInvalidRef, s, shortUUIDLength, shortAlphabet)
}
