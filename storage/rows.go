package storage

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// BlobKey identifies a blob in an index and in staging. It holds raw bytes: a
// kind byte, then what identifies blobs of that kind.
//
//	'd' digest (32)   a deduplicated blob
//	'u' UUID (16)     a blob of its own, stored without dedup
type BlobKey string

const (
	keyDigest = 'd'
	keyUUID   = 'u'
)

// DigestKey is the key of a deduplicated blob.
func DigestKey(d Digest) BlobKey { return BlobKey(keyDigest) + BlobKey(d[:]) }

// UUIDKey is the key of a blob that is not deduplicated.
func UUIDKey(u UUID) BlobKey { return BlobKey(keyUUID) + BlobKey(u[:]) }

// Digest is the digest that a deduplicated blob's key holds.
func (k BlobKey) Digest() (Digest, bool) {
	var d Digest
	if len(k) != 1+len(d) || k[0] != keyDigest {
		return d, false
	}
	copy(d[:], k[1:])
	return d, true
}

// Valid says whether the key has one of the forms above.
func (k BlobKey) Valid() bool {
	return len(k) == 33 && k[0] == keyDigest || len(k) == 17 && k[0] == keyUUID
}

// String is the kind byte and the rest in hexadecimal, safe as a file name.
func (k BlobKey) String() string {
	if k == "" {
		return ""
	}
	return string(k[0]) + hex.EncodeToString([]byte(k[1:]))
}

// ParseBlobKey is the inverse of String.
func ParseBlobKey(s string) (BlobKey, error) {
	if s != "" {
		rest, err := hex.DecodeString(s[1:])
		k := BlobKey(s[:1]) + BlobKey(rest)
		if err == nil && k.Valid() && k.String() == s {
			return k, nil
		}
	}
	return "", fmt.Errorf("%w: blob key %.80q", ErrInvalidRef, s)
}

// BlobRow is what an index keeps of a blob. Times are kept to the microsecond.
type BlobRow struct {
	Key          BlobKey
	Path         string // relative to the base directory, forward slashes
	Organization OrganizationMode
	Size         int64  // bytes
	CRC          uint32 // CRC-32C (Castagnoli) of the bytes
	Digest       Digest
	MimeType     string // of the first reference
	Refs         int64  // how many reference rows name this blob
	CreatedAt    time.Time
	AccessedAt   time.Time // coarse; zero when never read
}

// NameHash is the hash6 in the blob's file name, which is also that of every
// reference's ID.
func (b *BlobRow) NameHash() string {
	hash, _, _ := strings.Cut(path.Base(b.Path), "-")
	return hash
}

// RefRow is what an index keeps of a reference.
type RefRow struct {
	UUID     UUID
	Blob     BlobKey
	Type     string
	MimeType string
	Metadata MediaMetadata
}

// Addition asks an index to add one reference.
type Addition struct {
	Ref RefRow
	// Blob is the row to insert when the index has none of that key; Refs is
	// ignored.
	Blob BlobRow
	// Staged says that the bytes are in staging, so that the index, once it has
	// made them durable, may insert the blob row.
	Staged bool
}

// Removal is what an index answers when it ended a reference.
type Removal struct {
	Found bool    // false: there was no such reference, nothing changed
	Last  bool    // the blob row went too; its files are to be removed
	Blob  BlobRow // as it stood after the removal
}

// Mirror is one line of a sidecar that a committed transaction owes.
type Mirror struct {
	UUID    UUID
	Deleted bool    // a tombstone, not an addition
	Blob    BlobKey // whose sidecar
}

// Unlink is a blob whose row is gone and whose files are still to be removed.
type Unlink struct {
	Path string
}

// Debt is the work that committed transactions owe to the directory tree.
type Debt struct {
	Mirrors []Mirror
	Unlinks []Unlink
}

// Counters are the totals that an index keeps.
type Counters struct {
	Refs          int64 // reference rows
	Blobs         int64 // blob rows
	LogicalBytes  int64 // sum over references
	PhysicalBytes int64 // sum over blobs
}

// Commit is what an index tells of the changes that it has made durable
// together.
type Commit struct {
	Operations int           // changes
	Staged     int           // additions among them that brought bytes
	Bytes      int64         // that the index wrote for it
	Sync       time.Duration // for making the staged bytes durable
	Duration   time.Duration // of all, Sync included
}

// RefFilter narrows a listing to the references of one conversation, session,
// run and user; an empty field lets everything through.
type RefFilter struct {
	ConversationID, SessionID, RunID, UserID string
}

// Matches says whether the filter lets a reference with metadata m through.
func (f *RefFilter) Matches(m *MediaMetadata) bool {
	return (f.ConversationID == "" || f.ConversationID == m.ConversationID) &&
		(f.SessionID == "" || f.SessionID == m.SessionID) &&
		(f.RunID == "" || f.RunID == m.RunID) &&
		(f.UserID == "" || f.UserID == m.UserID)
}

// RefPair is a reference with the blob it names.
type RefPair struct {
	Ref  RefRow
	Blob BlobRow
}
