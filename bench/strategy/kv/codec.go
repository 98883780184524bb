package kv

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// rowVersion leads every row. Its fields follow in order: numbers as varints,
// texts as their length in bytes, a uvarint, and the bytes.
const rowVersion = 1

func appendText[T ~string | ~[]byte](to []byte, s T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

// EncodeBlob is the row of a blob. A digest that the key holds is left out.
func EncodeBlob(b *storage.BlobRow) []byte {
	row := make([]byte, 0, 64+len(b.Path)+len(b.MimeType))
	row = append(row, rowVersion)
	row = appendText(row, b.Path)
	row = appendText(row, b.Organization)
	row = binary.AppendVarint(row, b.Size)
	row = binary.AppendUvarint(row, uint64(b.CRC))
	if _, inKey := b.Key.Digest(); inKey || b.Digest.IsZero() {
		row = appendText(row, "")
	} else {
		row = appendText(row, b.Digest[:])
	}
	row = appendText(row, b.MimeType)
	row = binary.AppendVarint(row, b.Refs)
	row = binary.AppendVarint(row, b.Ended)
	row = binary.AppendVarint(row, toMicro(b.CreatedAt))
	return binary.AppendVarint(row, toMicro(b.AccessedAt))
}

// DecodeBlob is the inverse of EncodeBlob, or ErrCorrupted.
func DecodeBlob(key storage.BlobKey, row []byte) (storage.BlobRow, error) {
	f := fieldsOf(row)
	b := storage.BlobRow{
		Key: key, Path: f.text(), Organization: storage.OrganizationMode(f.text()),
		Size: f.number(), CRC: uint32(f.unsigned()),
	}
	digest := f.text()
	b.MimeType, b.Refs, b.Ended = f.text(), f.number(), f.number()
	b.CreatedAt, b.AccessedAt = fromMicro(f.number()), fromMicro(f.number())
	if d, inKey := key.Digest(); inKey {
		b.Digest = d
	} else {
		copy(b.Digest[:], digest)
	}
	if f.bad || len(f.rest) > 0 || !key.Valid() || b.Path == "" || b.Size < 0 {
		return storage.BlobRow{}, fmt.Errorf("%w: blob %s: row of path %q, size %d", storage.ErrCorrupted, key, b.Path, b.Size)
	}
	return b, nil
}

func encodeRef(ref *storage.RefRow) []byte {
	m := &ref.Metadata
	row := make([]byte, 0, 128)
	row = append(row, rowVersion)
	for _, text := range [...]string{string(ref.Blob), m.SessionID, m.ConversationID, m.RunID, m.UserID, ref.Type, ref.MimeType, m.Policy} {
		row = appendText(row, text)
	}
	row = binary.AppendVarint(row, int64(m.MessageIndex))
	row = binary.AppendVarint(row, int64(m.ContentIndex))
	row = binary.AppendVarint(row, toMicro(m.CreatedAt))
	row = binary.AppendVarint(row, toMicro(ref.ExpiresAt))
	row = binary.AppendVarint(row, ref.Count)
	row = binary.AppendUvarint(row, uint64(ref.Revision))
	row = binary.AppendUvarint(row, uint64(len(m.Labels)))
	for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
		row = appendText(appendText(row, name), m.Labels[name])
	}
	return row
}

func decodeRef(id storage.UUID, row []byte) (storage.RefRow, error) {
	f := fieldsOf(row)
	ref := storage.RefRow{UUID: id, Blob: storage.BlobKey(f.text())}
	m := &ref.Metadata
	m.SessionID, m.ConversationID, m.RunID, m.UserID = f.text(), f.text(), f.text(), f.text()
	ref.Type, ref.MimeType, m.Policy = f.text(), f.text(), f.text()
	m.MessageIndex, m.ContentIndex = int(f.number()), int(f.number())
	m.CreatedAt, ref.ExpiresAt = fromMicro(f.number()), fromMicro(f.number())
	ref.Count, ref.Revision = f.number(), uint32(f.unsigned())
	for n := f.unsigned(); n > 0 && !f.bad; n-- {
		if m.Labels == nil {
			m.Labels = make(map[string]string, min(n, storage.MaxLabels))
		}
		name := f.text()
		m.Labels[name] = f.text()
	}
	if f.bad || len(f.rest) > 0 || !ref.Blob.Valid() {
		return storage.RefRow{}, fmt.Errorf("%w: reference %s: row of blob %q", storage.ErrCorrupted, id, ref.Blob)
	}
	return ref, nil
}

// EncodeTotals is a row of the totals.
func EncodeTotals(c storage.Counters) []byte {
	row := []byte{rowVersion}
	for _, n := range [...]int64{c.Refs, c.Blobs, c.LogicalBytes, c.PhysicalBytes, c.NoConversation, c.NoSession, c.NoRun} {
		row = binary.AppendVarint(row, n)
	}
	return row
}

func decodeTotals(row []byte) (storage.Counters, error) {
	f := fieldsOf(row)
	c := storage.Counters{
		Refs: f.number(), Blobs: f.number(), LogicalBytes: f.number(), PhysicalBytes: f.number(),
		NoConversation: f.number(), NoSession: f.number(), NoRun: f.number(),
	}
	if f.bad || len(f.rest) > 0 {
		return c, fmt.Errorf("%w: totals %x", storage.ErrCorrupted, row)
	}
	return c, nil
}

// fields reads a row field by field. After a field that is not there everything
// is zero.
type fields struct {
	rest []byte
	bad  bool
}

func fieldsOf(row []byte) *fields {
	if len(row) == 0 || row[0] != rowVersion {
		return &fields{bad: true}
	}
	return &fields{rest: row[1:]}
}

func (f *fields) fail() {
	f.bad, f.rest = true, nil
}

func (f *fields) unsigned() uint64 {
	n, width := binary.Uvarint(f.rest)
	if width <= 0 {
		f.fail()
		return 0
	}
	f.rest = f.rest[width:]
	return n
}

func (f *fields) number() int64 {
	n, width := binary.Varint(f.rest)
	if width <= 0 {
		f.fail()
		return 0
	}
	f.rest = f.rest[width:]
	return n
}

func (f *fields) text() string {
	n := f.unsigned()
	if n > uint64(len(f.rest)) {
		f.fail()
		return ""
	}
	s := string(f.rest[:n])
	f.rest = f.rest[n:]
	return s
}

// noTime stands for the zero time, which has no use as a time of its own.
const noTime = math.MinInt64

func toMicro(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == noTime {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// membership is a list that a reference is in.
type membership struct {
	table Table
	of    string // ID, or the bytes of a digest or of a time
}

// prefix is what the keys of the list begin with.
func (m membership) prefix() []byte { return append([]byte(m.of), 0) }

// signBit turned over puts numbers in the order of their bytes.
const signBit = 1 << 63

// expiryList is the list of those that expire at a time.
func expiryList(at time.Time) membership {
	return membership{ByExpiry, string(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())^signBit))}
}

// expiryOf is when a reference expires whose key in ByExpiry begins so.
func expiryOf(key []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(key) ^ signBit)).UTC()
}

// key is that of a reference in the list.
func (m membership) key(ref storage.UUID) []byte { return append(m.prefix(), ref[:]...) }

// memberships are the lists of a digest, IDs and time of expiry, of those that are set.
func memberships(digest storage.Digest, ref *storage.RefRow) []membership {
	lists, m := make([]membership, 0, 6), &ref.Metadata
	if !digest.IsZero() {
		lists = append(lists, membership{ByDigest, string(digest[:])})
	}
	for _, m := range [...]membership{
		{BySession, m.SessionID}, {ByConversation, m.ConversationID}, {ByRun, m.RunID}, {ByUser, m.UserID},
	} {
		if m.of != "" {
			lists = append(lists, m)
		}
	}
	if !ref.ExpiresAt.IsZero() {
		lists = append(lists, expiryList(ref.ExpiresAt))
	}
	return lists
}
