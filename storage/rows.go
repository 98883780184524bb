package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// BlobKey identifies a blob in an index and in staging. It holds raw bytes: a
// kind byte, then what identifies blobs of that kind.
//
//	'd' digest (32)              a deduplicated blob
//	's' digest (32), scope (16)  a blob that is deduplicated within a scope
//	'u' UUID (16)                a blob of its own, stored without dedup
//
// The digest comes first, for the name of a blob's file tells how it begins: so
// the row of a file is found among the few whose digests begin alike.
type BlobKey string

const (
	keyDigest = 'd'
	keyScoped = 's'
	keyUUID   = 'u'
)

// DigestKey is the key of a deduplicated blob.
func DigestKey(d Digest) BlobKey { return BlobKey(keyDigest) + BlobKey(d[:]) }

// ScopedKey is the key of a blob that is deduplicated within a scope.
func ScopedKey(d Digest, s Scope) BlobKey { return BlobKey(keyScoped) + BlobKey(d[:]) + BlobKey(s[:]) }

// UUIDKey is the key of a blob that is not deduplicated.
func UUIDKey(u UUID) BlobKey { return BlobKey(keyUUID) + BlobKey(u[:]) }

// Scope stands for one user or session, among whose references alone content is
// shared. It does not hide the ID from who can guess it.
type Scope [16]byte

// ScopeOf is the scope of an ID: the beginning of the SHA-256 of the name of its
// kind, a NUL, and the ID.
func ScopeOf(kind IDKind, id string) Scope {
	sum := sha256.Sum256([]byte(scopeNames[kind] + "\x00" + id))
	return Scope(sum[:16])
}

// scopeNames are part of the format.
var scopeNames = [...]string{ConversationIDs: "conversation", SessionIDs: "session", RunIDs: "run", UserIDs: "user"}

// Digest is the digest that a deduplicated blob's key holds and that leads to the
// blob by itself; that of a scope's does not.
func (k BlobKey) Digest() (Digest, bool) {
	var d Digest
	if len(k) != 1+len(d) || k[0] != keyDigest {
		return d, false
	}
	copy(d[:], k[1:])
	return d, true
}

// Shared says whether several references may have the blob.
func (k BlobKey) Shared() bool { return k != "" && k[0] != keyUUID }

// UUID is the UUID that is the key of a blob of its own.
func (k BlobKey) UUID() (UUID, bool) {
	var u UUID
	if len(k) != 1+len(u) || k[0] != keyUUID {
		return u, false
	}
	copy(u[:], k[1:])
	return u, true
}

// Valid says whether the key has one of the forms above.
func (k BlobKey) Valid() bool {
	return len(k) == 33 && k[0] == keyDigest || len(k) == 49 && k[0] == keyScoped || len(k) == 17 && k[0] == keyUUID
}

// String is the kind byte and the rest in hexadecimal, safe as a file name.
func (k BlobKey) String() string {
	if k == "" {
		return ""
	}
	text := make([]byte, 0, 2*len(k))
	text = append(text, k[0])
	return string(hex.AppendEncode(text, []byte(k[1:])))
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
	Ended        int64  // how many references ended since the blob got its path: its sidecar may tell of them
	CreatedAt    time.Time
	AccessedAt   time.Time // coarse; zero when never read
}

// NameHash is the hash6 in the blob's file name, which is also that of every
// reference's ID.
func (b *BlobRow) NameHash() string {
	hash, _, _ := strings.Cut(path.Base(b.Path), "-")
	return hash
}

// NamedAfter says whether the blob's file bears the UUID of a reference: that of
// the one that brought the bytes.
func (b *BlobRow) NamedAfter(ref UUID) bool {
	var name [shortUUIDLength]byte // every Add asks, so without an allocation
	shortEncoding.Encode(name[:], ref[:])
	_, rest, _ := strings.Cut(b.Path[strings.LastIndexByte(b.Path, '/')+1:], "-")
	return len(rest) >= len(name) && rest[:len(name)] == string(name[:])
}

// Founder is the UUID in the name of the blob's file. The reference of that UUID
// may have ended.
func (b *BlobRow) Founder() (UUID, bool) {
	stem, _, _ := strings.Cut(path.Base(b.Path), ".")
	id, err := ParseID(stem)
	return id.UUID, err == nil
}

// ListedDigest is the digest under which an index lists a reference to the blob,
// zero where it does not have to: the digest is not known, or is in the key of
// the blob, whose name leads to the reference.
func (b *BlobRow) ListedDigest(ref UUID) Digest {
	if _, shared := b.Key.Digest(); shared && b.NamedAfter(ref) {
		return Digest{}
	}
	return b.Digest
}

// RefRow is what an index keeps of a reference.
type RefRow struct {
	UUID     UUID
	Blob     BlobKey
	Type     string
	MimeType string
	Metadata MediaMetadata
	// ExpiresAt is when the reference may be ended because its time is over; zero:
	// never. It is kept to the microsecond.
	ExpiresAt time.Time
	// Count is how many removals end the reference, where it stands for several
	// that are all alike; 0 is 1.
	Count int64
	// Revision is raised by every change of the row.
	Revision uint32
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

// Removal is what an index answers when it ended a reference, or took one from
// its count.
type Removal struct {
	Found   bool    // false: there was no such reference, nothing changed
	Counted bool    // the reference is still there, with a count that is one less
	Last    bool    // the blob row went too; its files are to be removed
	Ref     RefRow  // as it stood last
	Blob    BlobRow // as it stood after the removal
}

// Place is a place in the order of expiry: that of a reference with a UUID.
type Place struct {
	At   time.Time // when the reference expires
	UUID UUID
}

// Usage is what references add up to.
type Usage struct {
	Refs  int64 // references
	Bytes int64 // sum of their sizes
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

	// References without an ID, which are in no list of that kind.
	NoConversation, NoSession, NoRun int64
}

// CountRef counts n references like one with metadata m to a blob of a size; a
// negative n takes them away.
func (c *Counters) CountRef(m *MediaMetadata, size, n int64) {
	c.Refs += n
	c.LogicalBytes += n * size
	for _, lack := range [...]struct {
		id    string
		count *int64
	}{{m.ConversationID, &c.NoConversation}, {m.SessionID, &c.NoSession}, {m.RunID, &c.NoRun}} {
		if lack.id == "" {
			*lack.count += n
		}
	}
}

// Plus is the sum of two totals.
func (c Counters) Plus(d Counters) Counters {
	return Counters{
		Refs: c.Refs + d.Refs, Blobs: c.Blobs + d.Blobs,
		LogicalBytes: c.LogicalBytes + d.LogicalBytes, PhysicalBytes: c.PhysicalBytes + d.PhysicalBytes,
		NoConversation: c.NoConversation + d.NoConversation, NoSession: c.NoSession + d.NoSession, NoRun: c.NoRun + d.NoRun,
	}
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
// run and user and to bytes of one digest; a zero field lets everything through.
// It also says in which order they come.
type RefFilter struct {
	ConversationID, SessionID, RunID, UserID string
	// Digest is that of the bytes, however they are kept: in a blob that is
	// shared, or in blobs of their own.
	Digest Digest
	// Newest lists from the last UUID to the first, so that "after" a UUID is
	// what is smaller; the zero UUID stands for the end then.
	Newest bool
}

// Matches says whether the filter lets a reference through.
func (f *RefFilter) Matches(p *RefPair) bool {
	m := &p.Ref.Metadata
	return (f.ConversationID == "" || f.ConversationID == m.ConversationID) &&
		(f.SessionID == "" || f.SessionID == m.SessionID) &&
		(f.RunID == "" || f.RunID == m.RunID) &&
		(f.UserID == "" || f.UserID == m.UserID) &&
		(f.Digest.IsZero() || f.Digest == p.Blob.Digest)
}

// RefPair is a reference with the blob it names.
type RefPair struct {
	Ref  RefRow
	Blob BlobRow
}

// IDKind is one of the kinds of ID that a reference may have.
type IDKind byte

// The kinds of ID.
const (
	ConversationIDs IDKind = iota
	SessionIDs
	RunIDs
	UserIDs
)

// Of is the ID of that kind in m, empty where none is set.
func (k IDKind) Of(m *MediaMetadata) string {
	switch k {
	case ConversationIDs:
		return m.ConversationID
	case SessionIDs:
		return m.SessionID
	case RunIDs:
		return m.RunID
	}
	return m.UserID
}
