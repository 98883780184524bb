package sqlindex

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// scanner is a row of a query.
type scanner interface{ Scan(into ...any) error }

// blobScan takes up the columns of a blob.
type blobScan struct {
	key, digest       []byte
	organization      string
	crc               int64
	created, accessed int64
	row               storage.BlobRow
}

func (s *blobScan) into() []any {
	return []any{&s.key, &s.row.Path, &s.organization, &s.row.Size, &s.crc, &s.digest, &s.row.MimeType, &s.row.Refs, &s.row.Ended, &s.created, &s.accessed}
}

func (s *blobScan) blob() storage.BlobRow {
	b := s.row
	b.Key, b.Organization, b.CRC = storage.BlobKey(s.key), storage.OrganizationMode(s.organization), uint32(s.crc)
	if d, inKey := b.Key.Digest(); inKey {
		b.Digest = d
	} else {
		copy(b.Digest[:], s.digest)
	}
	b.CreatedAt, b.AccessedAt = fromMicro(s.created), fromMicro(s.accessed)
	return b
}

func scanBlob(row scanner) (storage.BlobRow, error) {
	var s blobScan
	if err := row.Scan(s.into()...); err != nil {
		return storage.BlobRow{}, err
	}
	return s.blob(), nil
}

func blobArgs(b *storage.BlobRow) []any {
	digest := []byte{}
	if _, inKey := b.Key.Digest(); !inKey && !b.Digest.IsZero() {
		digest = b.Digest[:]
	}
	return []any{[]byte(b.Key), b.Path, string(b.Organization), b.Size, int64(b.CRC), digest, b.MimeType, b.Refs, b.Ended,
		toMicro(b.CreatedAt), toMicro(b.AccessedAt)}
}

func scanPair(row scanner) (storage.RefPair, error) {
	var p storage.RefPair
	var blob blobScan
	var uuid, key, session, conversation, run, user, labels []byte
	var created int64
	var expires sql.NullInt64
	m := &p.Ref.Metadata
	into := append([]any{&uuid, &key, &session, &conversation, &run, &user, &m.MessageIndex, &m.ContentIndex,
		&p.Ref.Type, &p.Ref.MimeType, &labels, &created, &m.Policy, &expires, &p.Ref.Count, &p.Ref.Revision}, blob.into()...)
	if err := row.Scan(into...); err != nil {
		return p, err
	}
	copy(p.Ref.UUID[:], uuid)
	p.Ref.Blob = storage.BlobKey(key)
	m.SessionID, m.ConversationID, m.RunID, m.UserID = string(session), string(conversation), string(run), string(user)
	m.CreatedAt = fromMicro(created)
	if expires.Valid {
		p.Ref.ExpiresAt = fromMicro(expires.Int64)
	}
	p.Blob = blob.blob()
	if len(labels) > 0 {
		if err := json.Unmarshal(labels, &m.Labels); err != nil {
			return p, fmt.Errorf("%w: labels of reference %s: %w", storage.ErrCorrupted, p.Ref.UUID, err)
		}
	}
	return p, nil
}

func refArgs(ref *storage.RefRow) ([]any, error) {
	m := &ref.Metadata
	labels := []byte{}
	if len(m.Labels) > 0 {
		var err error
		if labels, err = json.Marshal(m.Labels); err != nil {
			return nil, err
		}
	}
	return []any{ref.UUID[:], []byte(ref.Blob), []byte(m.SessionID), []byte(m.ConversationID), []byte(m.RunID), []byte(m.UserID),
		m.MessageIndex, m.ContentIndex, ref.Type, ref.MimeType, labels, toMicro(m.CreatedAt),
		m.Policy, expiry(ref.ExpiresAt), ref.Count, ref.Revision}, nil
}

// expiry is NULL for a reference that does not expire.
func expiry(at time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: toMicro(at), Valid: !at.IsZero()}
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
