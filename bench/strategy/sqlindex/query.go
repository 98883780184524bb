package sqlindex

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// each goes through the rows of a query.
func (s *statements) each(query string, fn func(scanner) error, args ...any) error {
	rows, err := s.prepared[query].Query(args...)
	if err != nil {
		return err
	}
	return scanAll(rows, fn)
}

func scanAll(rows *sql.Rows, fn func(scanner) error) error {
	var err error
	for err == nil && rows.Next() {
		err = fn(rows)
	}
	return errors.Join(err, rows.Err(), rows.Close())
}

// Blob is a blob's row; see engine.Index.
func (x *Index) Blob(ctx context.Context, key storage.BlobKey) (storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return storage.BlobRow{}, err
	}
	blob, err := scanBlob(x.readers.prepared[sqlReadBlob].QueryRow([]byte(key)))
	if errors.Is(err, sql.ErrNoRows) {
		return blob, fmt.Errorf("%w: blob %s", storage.ErrNotFound, key)
	}
	return blob, x.wrap(err)
}

// Ref is a reference and its blob; see engine.Index.
func (x *Index) Ref(ctx context.Context, id storage.ID) (storage.RefRow, storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return storage.RefRow{}, storage.BlobRow{}, err
	}
	pair, err := scanPair(x.readers.prepared[sqlReadPair].QueryRow(id.UUID[:]))
	if errors.Is(err, sql.ErrNoRows) || err == nil && id.String()[:6] != pair.Blob.NameHash() {
		return storage.RefRow{}, storage.BlobRow{}, storage.ErrNotFound
	}
	return pair.Ref, pair.Blob, x.wrap(err)
}

// Refs is a page of references; see engine.Index.
func (x *Index) Refs(ctx context.Context, filter storage.RefFilter, after storage.UUID, limit int) (page []storage.RefPair, next storage.UUID, more bool, err error) {
	next = after
	if err := ctx.Err(); err != nil {
		return nil, next, false, err
	}
	ids := [...]string{filter.SessionID, filter.ConversationID, filter.RunID, filter.UserID}
	by := ""
	for i := range ids {
		if ids[i] != "" {
			by = idColumns[i]
			break
		}
	}
	args := []any{after[:], limit + 1, []byte(ids[0]), []byte(ids[1]), []byte(ids[2]), []byte(ids[3])}
	if filter.Newest && after.IsZero() {
		args[0] = bytes.Repeat([]byte{0xff}, len(after))
	}
	if !filter.Digest.IsZero() {
		by = byDigest
		args = append(args, filter.Digest[:], []byte(storage.DigestKey(filter.Digest)))
	}
	err = x.readers.each(sqlReadPairs(by, filter.Newest), func(row scanner) error {
		pair, err := scanPair(row)
		page = append(page, pair)
		return err
	}, args...)
	if err != nil {
		return nil, next, false, x.wrap(err)
	}
	if len(page) > limit {
		page, more = page[:limit], true
	}
	if len(page) > 0 {
		next = page[len(page)-1].Ref.UUID
	}
	return page, next, more, nil
}

// Due is a page of references by expiry; see engine.Index.
func (x *Index) Due(ctx context.Context, before time.Time, after storage.Place, limit int) (page []storage.RefPair, next storage.Place, more bool, err error) {
	next = after
	if err := ctx.Err(); err != nil {
		return nil, next, false, err
	}
	err = x.readers.each(sqlReadDue, func(row scanner) error {
		pair, err := scanPair(row)
		page = append(page, pair)
		return err
	}, toMicro(after.At), after.UUID[:], toMicro(before), limit+1)
	if err != nil {
		return nil, next, false, x.wrap(err)
	}
	if more = len(page) > limit; more {
		page = page[:limit]
	}
	if len(page) > 0 {
		last := &page[len(page)-1].Ref
		next = storage.Place{At: last.ExpiresAt, UUID: last.UUID}
	}
	return page, next, more, nil
}

// Usage is what the references of one session or user add up to; see engine.Index.
func (x *Index) Usage(ctx context.Context, kind storage.IDKind, id string) (storage.Usage, error) {
	var u storage.Usage
	if err := ctx.Err(); err != nil {
		return u, err
	}
	if kind != storage.SessionIDs && kind != storage.UserIDs {
		return u, x.wrap(fmt.Errorf("%w: the use of IDs of kind %d is not kept", storage.ErrInvalidQuery, kind))
	}
	err := x.readers.prepared[sqlReadUsage].QueryRow(kind, []byte(id)).Scan(&u.Refs, &u.Bytes)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return u, x.wrap(err)
}

// IDs is a page of IDs; see engine.Index.
func (x *Index) IDs(ctx context.Context, kind storage.IDKind, after string, limit int) ([]string, error) {
	query := sqlReadID([...]string{
		storage.ConversationIDs: "conversation", storage.SessionIDs: "session", storage.RunIDs: "run", storage.UserIDs: "user",
	}[kind])
	var page []string
	for len(page) < limit {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var id []byte
		if err := x.readers.prepared[query].QueryRow([]byte(after)).Scan(&id); err != nil {
			return nil, x.wrap(err)
		}
		if id == nil {
			return page, nil
		}
		after = string(id)
		page = append(page, after)
	}
	return page, ctx.Err()
}

// Blobs is a page of blobs; see engine.Index.
func (x *Index) Blobs(ctx context.Context, after storage.BlobKey, limit int) ([]storage.BlobRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var page []storage.BlobRow
	err := x.readers.each(sqlReadBlobs, func(row scanner) error {
		blob, err := scanBlob(row)
		page = append(page, blob)
		return err
	}, []byte(after), limit)
	return page, x.wrap(err)
}

// Counters are the totals; see engine.Index.
func (x *Index) Counters(ctx context.Context) (storage.Counters, error) {
	var c storage.Counters
	if err := ctx.Err(); err != nil {
		return c, err
	}
	err := x.readers.prepared[sqlReadTotals].QueryRow().Scan(&c.Refs, &c.Blobs, &c.LogicalBytes, &c.PhysicalBytes,
		&c.NoConversation, &c.NoSession, &c.NoRun)
	return c, x.wrap(err)
}

// Debt is what changes owe to the tree; see engine.Index.
func (x *Index) Debt(ctx context.Context) (storage.Debt, error) {
	var debt storage.Debt
	if err := ctx.Err(); err != nil {
		return debt, err
	}
	err := x.readers.each(sqlReadMirrors, func(row scanner) error {
		var line, blob []byte
		if err := row.Scan(&line, &blob); err != nil {
			return err
		}
		m, err := storage.ParseMirror(line, storage.BlobKey(blob))
		debt.Mirrors = append(debt.Mirrors, m)
		return err
	})
	if err != nil {
		return debt, x.wrap(err)
	}
	err = x.readers.each(sqlReadUnlinks, func(row scanner) error {
		var u storage.Unlink
		err := row.Scan(&u.Path)
		debt.Unlinks = append(debt.Unlinks, u)
		return err
	})
	return debt, x.wrap(err)
}
