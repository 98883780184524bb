// Package sqlindex is an index in a SQLite database (modernc.org/sqlite) in WAL
// mode with synchronous=FULL: a commit is an append to the log and one sync.
//
// One connection writes, with prepared statements, one transaction after the
// other; others read beside it. Rows are those of package boltindex; the lists of
// IDs are partial indexes. IDs and keys are blobs, since a text of SQL ends at a
// NUL for some of its functions. Times are microseconds since 1970 UTC.
package sqlindex

import "strings"

// formatVersion is the version of the schema, kept as SQLite's user_version.
// Another one is refused.
const formatVersion = 3

const schema = `
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (
	id INTEGER PRIMARY KEY CHECK (id = 1), refs INTEGER NOT NULL, blobs INTEGER NOT NULL,
	logical INTEGER NOT NULL, physical INTEGER NOT NULL,
	no_conversation INTEGER NOT NULL, no_session INTEGER NOT NULL, no_run INTEGER NOT NULL
);
INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0, 0);
CREATE TABLE blobs (
	key BLOB PRIMARY KEY, path TEXT NOT NULL, organization TEXT NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL,
	digest BLOB NOT NULL, mime TEXT NOT NULL, refs INTEGER NOT NULL, ended INTEGER NOT NULL, created INTEGER NOT NULL, accessed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE refs (
	uuid BLOB PRIMARY KEY, blob BLOB NOT NULL, session BLOB NOT NULL, conversation BLOB NOT NULL, run BLOB NOT NULL,
	user BLOB NOT NULL, message INTEGER NOT NULL, content INTEGER NOT NULL, type TEXT NOT NULL, mime TEXT NOT NULL,
	labels BLOB NOT NULL, created INTEGER NOT NULL, policy TEXT NOT NULL, expires INTEGER, count INTEGER NOT NULL,
	revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_session ON refs (session) WHERE session <> x'';
CREATE INDEX by_conversation ON refs (conversation) WHERE conversation <> x'';
CREATE INDEX by_run ON refs (run) WHERE run <> x'';
CREATE INDEX by_user ON refs (user) WHERE user <> x'';
CREATE INDEX by_blob ON refs (blob);
CREATE INDEX by_expiry ON refs (expires, uuid) WHERE expires IS NOT NULL;
CREATE INDEX by_digest ON blobs (digest) WHERE digest <> x'';
CREATE TABLE unlinks (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE mirrors (line BLOB PRIMARY KEY, blob BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE usage (kind INTEGER, id BLOB, refs INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
PRAGMA user_version = 3;
`

// Columns in the order in which rows are scanned.
const (
	blobColumns = `key, path, organization, size, crc, digest, mime, refs, ended, created, accessed`
	refColumns  = `r.uuid, r.blob, r.session, r.conversation, r.run, r.user, r.message, r.content, r.type, r.mime, r.labels, r.created,
		r.policy, r.expires, r.count, r.revision`
	pairs = `SELECT ` + refColumns + `, b.key, b.path, b.organization, b.size, b.crc, b.digest, b.mime, b.refs, b.ended, b.created, b.accessed
		FROM refs r CROSS JOIN blobs b ON b.key = r.blob `
)

// Changes, all run by the one connection that writes.
const (
	sqlBegin       = `BEGIN IMMEDIATE`
	sqlCommit      = `COMMIT`
	sqlRollback    = `ROLLBACK`
	sqlTouch       = `UPDATE blobs SET accessed = ?2 WHERE key = ?1`
	sqlCount       = `UPDATE blobs SET refs = refs + ?2, ended = ended + ?3 WHERE key = ?1 RETURNING ` + blobColumns
	sqlMove        = `UPDATE blobs SET path = ?2, organization = ?3, ended = 0 WHERE key = ?1 RETURNING ` + blobColumns
	sqlInsertBlob  = `INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`
	sqlDeleteBlob  = `DELETE FROM blobs WHERE key = ?1`
	sqlInsertRef   = `INSERT INTO refs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)`
	sqlReviseRef   = `UPDATE refs SET policy = ?2, expires = ?3, count = ?4, revision = ?5 WHERE uuid = ?1`
	sqlUse         = `INSERT INTO usage VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET refs = refs + ?3, bytes = bytes + ?4`
	sqlUnuse       = `DELETE FROM usage WHERE kind = ?1 AND id = ?2 AND refs = 0`
	sqlReadUsage   = `SELECT refs, bytes FROM usage WHERE kind = ?1 AND id = ?2`
	sqlReadDue     = pairs + `WHERE (r.expires, r.uuid) > (?1, ?2) AND r.expires < ?3 ORDER BY r.expires, r.uuid LIMIT ?4`
	sqlDeleteRef   = `DELETE FROM refs WHERE uuid = ?1`
	sqlInsertDebt  = `INSERT OR REPLACE INTO mirrors VALUES (?1, ?2)`
	sqlDeleteDebt  = `DELETE FROM mirrors WHERE line = ?1`
	sqlOweUnlink   = `INSERT OR IGNORE INTO unlinks VALUES (?1)`
	sqlPayUnlink   = `DELETE FROM unlinks WHERE path = ?1`
	sqlReadTotals  = `SELECT refs, blobs, logical, physical, no_conversation, no_session, no_run FROM totals`
	sqlReadBlob    = `SELECT ` + blobColumns + ` FROM blobs WHERE key = ?1`
	sqlReadPair    = pairs + `WHERE r.uuid = ?1`
	sqlReadBlobs   = `SELECT ` + blobColumns + ` FROM blobs WHERE key > ?1 ORDER BY key LIMIT ?2`
	sqlReadMirrors = `SELECT line, blob FROM mirrors`
	sqlReadUnlinks = `SELECT path FROM unlinks`
	sqlTotals      = `UPDATE totals SET refs = refs + ?1, blobs = blobs + ?2, logical = logical + ?3, physical = physical + ?4,
		no_conversation = no_conversation + ?5, no_session = no_session + ?6, no_run = no_run + ?7`
)

// sqlReadPairs is a page of references after ?1 in an order, at most ?2, whose IDs
// are ?3 to ?6 where these are not empty. The ID in column by is not empty, so that
// its index can serve; without one the page comes from the table. By byDigest, the
// digest is ?7, and the key of its shared blob ?8.
func sqlReadPairs(by string, newest bool) string {
	query, order := pairs+`WHERE r.uuid > ?1`, ` ORDER BY r.uuid LIMIT ?2`
	if newest {
		query, order = pairs+`WHERE r.uuid < ?1`, ` ORDER BY r.uuid DESC LIMIT ?2`
	}
	if by == byDigest {
		query = strings.Replace(query, `refs r`, `refs r INDEXED BY by_blob`, 1)
		query += ` AND r.blob IN (SELECT ?8 UNION ALL SELECT key FROM blobs WHERE digest = ?7 AND digest <> x'')`
	}
	for i, column := range idColumns {
		at := string(rune('3' + i))
		if column == by {
			query += ` AND r.` + column + ` = ?` + at + ` AND r.` + column + ` <> x''`
		} else {
			query += ` AND (?` + at + ` = x'' OR r.` + column + ` = ?` + at + `)`
		}
	}
	return query + order
}

// sqlReadID is the ID after ?1 in a column.
func sqlReadID(column string) string {
	return `SELECT min(` + column + `) FROM refs WHERE ` + column + ` > ?1 AND ` + column + ` <> x''`
}

// byDigest has no column of that name in refs.
const byDigest = "digest"

var idColumns = [...]string{"session", "conversation", "run", "user"}
