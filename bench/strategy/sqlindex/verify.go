package sqlindex

import (
	"context"
	"errors"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// checks find rows that do not fit together: a kind of finding, a query of what,
// and a text for its one column.
var checks = [...]struct {
	kind          storage.FindingKind
	query, detail string
}{
	{storage.FindingIndex, `SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'`, "%s"},
	{storage.FindingDangling, `SELECT hex(uuid) FROM refs WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE key = refs.blob)`,
		"reference %s names a blob that has no row"},
	{storage.FindingRefcount, `
		SELECT hex(key) || ': refcount ' || blobs.refs || ', but reference rows: ' || coalesce(counted.refs, 0)
		FROM blobs LEFT JOIN (SELECT blob, count(*) AS refs FROM refs GROUP BY blob) AS counted ON counted.blob = key
		WHERE blobs.refs <> coalesce(counted.refs, 0)`, "blob %s"},
	{storage.FindingCounter, `
		SELECT refs || ' references, ' || blobs || ' blobs, ' || logical || ' and ' || physical || ' bytes' FROM totals
		WHERE refs <> (SELECT count(*) FROM refs) OR blobs <> (SELECT count(*) FROM blobs)
		OR no_conversation <> (SELECT count(*) FROM refs WHERE conversation = x'')
		OR no_session <> (SELECT count(*) FROM refs WHERE session = x'') OR no_run <> (SELECT count(*) FROM refs WHERE run = x'')
		OR logical <> (SELECT coalesce(sum(refs * size), 0) FROM blobs) OR physical <> (SELECT coalesce(sum(size), 0) FROM blobs)`,
		"totals of %s are not the sum of the rows"},
	{storage.FindingCounter, `
		WITH counted AS (
			SELECT 1 AS kind, session AS id, count(*) AS refs, sum(size) AS bytes FROM refs JOIN blobs ON key = blob WHERE session <> x'' GROUP BY session
			UNION ALL SELECT 3, user, count(*), sum(size) FROM refs JOIN blobs ON key = blob WHERE user <> x'' GROUP BY user)
		SELECT kind || ' ' || hex(id) FROM (SELECT * FROM usage EXCEPT SELECT * FROM counted)
		UNION ALL SELECT kind || ' ' || hex(id) FROM (SELECT * FROM counted EXCEPT SELECT * FROM usage)`, "usage of %s is not that of its references"},
}

// Verify has SQLite check its file, indexes included, and checks the rows against
// one another, in one state.
func (x *Index) Verify(ctx context.Context) ([]storage.Finding, error) {
	tx, err := x.readers.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, x.wrap(err)
	}
	var findings []storage.Finding
	for _, check := range checks {
		rows, err := tx.QueryContext(ctx, check.query)
		if err == nil {
			err = scanAll(rows, func(row scanner) error {
				var what string
				err := row.Scan(&what)
				findings = append(findings, storage.Finding{
					Kind: check.kind, Severity: storage.SeverityDamage, Detail: fmt.Sprintf(check.detail, what),
				})
				return err
			})
		}
		if err != nil {
			return findings, x.wrap(errors.Join(err, tx.Rollback()))
		}
	}
	return findings, x.wrap(tx.Rollback())
}
