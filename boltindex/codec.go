package boltindex

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/mediabolt/mediabolt/storage"
)

// rowVersion leads every row.
const rowVersion = 1

// blobRecord is a blob row. The digest is left out where the key holds it, and
// what shorten.go is about is taken out of texts and times: Name out of Path,
// words out of types.
type blobRecord struct {
	Path         string `cbor:"1,keyasint"`
	Organization byte   `cbor:"2,keyasint"` // place in storage.OrganizationModes, from 1
	Size         int64  `cbor:"3,keyasint"`
	CRC          uint32 `cbor:"4,keyasint"`
	Digest       []byte `cbor:"5,keyasint,omitempty"`
	MimeType     string `cbor:"6,keyasint,omitempty"`
	Refs         int64  `cbor:"7,keyasint"`
	Created      int64  `cbor:"8,keyasint,omitempty"`
	Accessed     int64  `cbor:"9,keyasint,omitempty"`
	Name         []byte `cbor:"10,keyasint,omitempty"`
	MimeWord     uint64 `cbor:"11,keyasint,omitempty"`
	Ended        int64  `cbor:"12,keyasint,omitempty"`
}

// refRecord is a reference row.
type refRecord struct {
	Blob         []byte            `cbor:"1,keyasint"`
	Session      string            `cbor:"2,keyasint,omitempty"`
	Conversation string            `cbor:"3,keyasint,omitempty"`
	Run          string            `cbor:"4,keyasint,omitempty"`
	User         string            `cbor:"5,keyasint,omitempty"`
	Message      int64             `cbor:"6,keyasint,omitempty"`
	Content      int64             `cbor:"7,keyasint,omitempty"`
	Type         string            `cbor:"8,keyasint,omitempty"`
	MimeType     string            `cbor:"9,keyasint,omitempty"`
	Labels       map[string]string `cbor:"10,keyasint,omitempty"`
	Created      int64             `cbor:"11,keyasint,omitempty"`
	TypeWord     uint64            `cbor:"12,keyasint,omitempty"`
	MimeWord     uint64            `cbor:"13,keyasint,omitempty"`
	Policy       string            `cbor:"14,keyasint,omitempty"`
	PolicyWord   uint64            `cbor:"15,keyasint,omitempty"`
	Expires      int64             `cbor:"16,keyasint,omitempty"`
	Count        int64             `cbor:"17,keyasint,omitempty"`
	Revision     uint32            `cbor:"18,keyasint,omitempty"`
}

// countersRecord is the counters row.
type countersRecord struct {
	Refs           int64 `cbor:"1,keyasint"`
	Blobs          int64 `cbor:"2,keyasint"`
	LogicalBytes   int64 `cbor:"3,keyasint"`
	PhysicalBytes  int64 `cbor:"4,keyasint"`
	NoConversation int64 `cbor:"5,keyasint,omitempty"`
	NoSession      int64 `cbor:"6,keyasint,omitempty"`
	NoRun          int64 `cbor:"7,keyasint,omitempty"`
}

// modes are the organization modes in the order of their numbers in rows.
var modes = storage.OrganizationModes()

var (
	encoding = must(cbor.CoreDetEncOptions().UserBufferEncMode())
	decoding = must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode())
)

// rowBuffers hold a row while it is encoded.
var rowBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// encode is the row of record: the version byte and its CBOR.
func encode(record any) ([]byte, error) {
	buf := rowBuffers.Get().(*bytes.Buffer)
	defer rowBuffers.Put(buf)
	buf.Reset()
	buf.WriteByte(rowVersion)
	if err := encoding.MarshalToBuffer(record, buf); err != nil {
		return nil, err
	}
	return bytes.Clone(buf.Bytes()), nil
}

// decode reads a row into record. A row of another version is ErrVersion, any
// other mismatch ErrCorrupted.
func decode(row []byte, record any) error {
	if len(row) == 0 {
		return fmt.Errorf("%w: empty row", storage.ErrCorrupted)
	}
	if row[0] != rowVersion {
		return fmt.Errorf("%w: row version %d, this program knows %d", storage.ErrVersion, row[0], rowVersion)
	}
	if err := decoding.Unmarshal(row[1:], record); err != nil {
		return fmt.Errorf("%w: row: %w", storage.ErrCorrupted, err)
	}
	return nil
}

func encodeBlob(b *storage.BlobRow) ([]byte, error) {
	mode := slices.Index(modes, b.Organization) + 1
	if mode == 0 {
		return nil, fmt.Errorf("blob %s: organization mode %q", b.Key, b.Organization)
	}
	r := blobRecord{
		Organization: byte(mode), Size: b.Size, CRC: b.CRC,
		Refs: b.Refs, Ended: b.Ended, Accessed: sinceMicro(b.AccessedAt, 0),
	}
	r.Path, r.Name = splitPath(b.Path)
	r.MimeWord, r.MimeType = word(b.MimeType)
	r.Created = sinceMicro(b.CreatedAt, r.base())
	if _, inKey := b.Key.Digest(); !inKey && !b.Digest.IsZero() {
		r.Digest = b.Digest[:]
	}
	return encode(&r)
}

// base is what the time of storing counts from.
func (r *blobRecord) base() int64 {
	if len(r.Name) != nameLength {
		return 0
	}
	return mintedAt(nameID(r.Name).UUID)
}

func decodeBlob(key storage.BlobKey, row []byte) (storage.BlobRow, error) {
	var r blobRecord
	if err := decode(row, &r); err != nil {
		return storage.BlobRow{}, fmt.Errorf("blob %s: %w", key, err)
	}
	if r.Organization == 0 || int(r.Organization) > len(modes) {
		return storage.BlobRow{}, fmt.Errorf("%w: blob %s: row of organization mode %d", storage.ErrCorrupted, key, r.Organization)
	}
	mime, err := fromWord(r.MimeWord, r.MimeType)
	if err != nil {
		return storage.BlobRow{}, fmt.Errorf("blob %s: %w", key, err)
	}
	b := storage.BlobRow{
		Key: key, Path: joinPath(r.Path, r.Name), Organization: modes[r.Organization-1], Size: r.Size, CRC: r.CRC, MimeType: mime,
		Refs: r.Refs, Ended: r.Ended, CreatedAt: timeSince(r.Created, r.base()), AccessedAt: timeSince(r.Accessed, 0),
	}
	if d, inKey := key.Digest(); inKey {
		b.Digest = d
	} else if len(r.Digest) == len(b.Digest) {
		copy(b.Digest[:], r.Digest)
	}
	if !key.Valid() || b.Path == "" || b.Size < 0 {
		return storage.BlobRow{}, fmt.Errorf("%w: blob %s: row of path %q, size %d", storage.ErrCorrupted, key, b.Path, b.Size)
	}
	return b, nil
}

func encodeRef(ref *storage.RefRow) ([]byte, error) {
	m := &ref.Metadata
	r := refRecord{
		Blob: []byte(ref.Blob), Session: m.SessionID, Conversation: m.ConversationID, Run: m.RunID, User: m.UserID,
		Message: int64(m.MessageIndex), Content: int64(m.ContentIndex),
		Labels: m.Labels, Created: sinceMicro(m.CreatedAt, mintedAt(ref.UUID)),
		Expires: sinceMicro(ref.ExpiresAt, mintedAt(ref.UUID)), Count: ref.Count, Revision: ref.Revision,
	}
	r.PolicyWord, r.Policy = word(m.Policy)
	r.TypeWord, r.Type = word(ref.Type)
	r.MimeWord, r.MimeType = word(ref.MimeType)
	return encode(&r)
}

func decodeRef(id storage.UUID, row []byte) (storage.RefRow, error) {
	var r refRecord
	if err := decode(row, &r); err != nil {
		return storage.RefRow{}, fmt.Errorf("reference %s: %w", id, err)
	}
	kind, err := fromWord(r.TypeWord, r.Type)
	mime, err2 := fromWord(r.MimeWord, r.MimeType)
	policy, err3 := fromWord(r.PolicyWord, r.Policy)
	if err := cmp.Or(err, err2, err3); err != nil {
		return storage.RefRow{}, fmt.Errorf("reference %s: %w", id, err)
	}
	ref := storage.RefRow{
		UUID: id, Blob: storage.BlobKey(r.Blob), Type: kind, MimeType: mime,
		ExpiresAt: timeSince(r.Expires, mintedAt(id)), Count: r.Count, Revision: r.Revision,
		Metadata: storage.MediaMetadata{
			ConversationID: r.Conversation, SessionID: r.Session, RunID: r.Run, UserID: r.User,
			MessageIndex: int(r.Message), ContentIndex: int(r.Content), CreatedAt: timeSince(r.Created, mintedAt(id)),
			Policy: policy, Labels: r.Labels,
		},
	}
	if !ref.Blob.Valid() {
		return storage.RefRow{}, fmt.Errorf("%w: reference %s: row of blob %q", storage.ErrCorrupted, id, r.Blob)
	}
	return ref, nil
}

// memberships are the lists that a reference is in, of those that are of anything:
// its digest's, which is zero where it needs none, its IDs', and that of those that
// expire.
func memberships(digest storage.Digest, ref *storage.RefRow) iter.Seq[membership] {
	return func(yield func(membership) bool) {
		if !digest.IsZero() && !yield(membership{bucketByDigest, string(digest[:])}) {
			return
		}
		m := &ref.Metadata
		for _, m := range [...]membership{
			{bucketBySession, m.SessionID}, {bucketByConversation, m.ConversationID},
			{bucketByRun, m.RunID}, {bucketByUser, m.UserID},
		} {
			if m.of != "" && !yield(m) {
				return
			}
		}
		if !ref.ExpiresAt.IsZero() {
			yield(membership{bucketByExpiry, string(expiryKey(ref.ExpiresAt))})
		}
	}
}

// membership is a list.
type membership struct {
	bucket bucket
	of     string // ID, or the bytes of a digest or of a time
}

// prefix is what the keys of the list begin with.
func (m membership) prefix() []byte {
	switch m.bucket {
	case bucketByDigest:
		return []byte(m.of[:listHash])
	case bucketByExpiry:
		return []byte(m.of)
	}
	return listOf(m.of)
}

// key is that of a reference in the list.
func (m membership) key(ref storage.UUID) []byte {
	return append(append(make([]byte, 0, listHash+len(ref)), m.prefix()...), ref[:]...)
}

// signBit turned over puts numbers in the order of their bytes.
const signBit = 1 << 63

// expiryKey is what the keys of the references that expire at a time begin with.
func expiryKey(at time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())^signBit)
}

// expiryOf is the inverse of expiryKey.
func expiryOf(key []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(key) ^ signBit)).UTC()
}

// The body of a log record is the version byte of rows and then, for every row,
// the length of its key (bucket included) as uvarint, the key, the length of its
// value plus one as uvarint, 0 where the row is gone, and the value.

func appendTable(to []byte, t *table) []byte {
	to = append(to, rowVersion)
	t.Scan(func(key string, value []byte) bool {
		to = binary.AppendUvarint(to, uint64(len(key)))
		to = append(to, key...)
		if value == nil {
			to = append(to, 0)
			return true
		}
		to = binary.AppendUvarint(to, uint64(len(value))+1)
		to = append(to, value...)
		return true
	})
	return to
}

// decodeTable adds the rows of a body to a table, which keeps the body.
func decodeTable(body []byte, into *table) error {
	if len(body) == 0 || body[0] != rowVersion {
		return fmt.Errorf("%w: record of version %.1x, this program knows %d", storage.ErrVersion, body, rowVersion)
	}
	rest := body[1:]
	for len(rest) > 0 {
		key, after, ok := cutField(rest, 0)
		value, end, ok2 := cutField(after, 1)
		if !ok || !ok2 || len(key) < 2 || bucket(key[0]) >= buckets {
			return fmt.Errorf("%w: row at byte %d of %d", storage.ErrCorrupted, len(body)-len(rest), len(body))
		}
		into.Set(string(key), value)
		rest = end
	}
	return nil
}

// cutField takes a field off the front of data, whose length was written with
// bias more. Below the bias the field is nil.
func cutField(data []byte, bias uint64) (field, rest []byte, ok bool) {
	n, width := binary.Uvarint(data)
	if width <= 0 {
		return nil, nil, false
	}
	data = data[width:]
	if n < bias {
		return nil, data, true
	}
	if n -= bias; n > uint64(len(data)) {
		return nil, nil, false
	}
	return data[:n:n], data[n:], true
}
