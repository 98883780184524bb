package storage

import (
	"encoding/base32"
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

// String is the UUID in 26 characters that sort like its bytes.
func (u UUID) String() string { return shortEncoding.EncodeToString(u[:]) }

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
	return hex.EncodeToString(id.Hash[:]) + "-" + id.UUID.String()
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
