package sqlindex

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	_ "modernc.org/sqlite" // registers the driver

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

const fileName = "index.sqlite"

// cacheKiB is the page cache of a connection.
const cacheKiB = 64 << 10

// Index is an index in a SQLite database. It is safe for concurrent use.
type Index struct {
	place        *frame.Place
	staged       *frame.Staged
	touches      frame.Touches
	doubt        frame.Doubt
	organization storage.OrganizationMode

	writing sync.Mutex // held during a transaction of writer
	writer  statements

	readers statements
}

// statements are prepared statements, by their text, of one connection or of a
// pool.
type statements struct {
	db       *sql.DB
	prepared map[string]*sql.Stmt
}

// Open opens the index in config.Root. Errors: ErrNoStore, ErrLocked, ErrVersion,
// or what SQLite says.
func Open(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
	place, err := frame.Take(ctx, &config, fileName)
	if err != nil {
		return nil, err
	}
	x := &Index{place: place, staged: frame.NewStaged(config.Sync)}
	if err := x.open(&config); err != nil {
		return nil, fmt.Errorf("open index %s: %w", place.Path, storage.Classify(errors.Join(err, x.closeAll())))
	}
	return x, nil
}

func (x *Index) open(config *engine.IndexConfig) (err error) {
	if x.place.New {
		// SQLite gives its other files the mode of this one.
		file, err := os.OpenFile(x.place.Path, os.O_CREATE|os.O_RDWR, frame.Mode(config))
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	synchronous := "FULL"
	if config.NoSync {
		synchronous = "OFF"
	}
	if x.writer.db, err = connect(x.place.Path, 1, synchronous); err != nil {
		return err
	}
	if err := x.begin(config); err != nil {
		return err
	}
	if x.readers.db, err = connect(x.place.Path, 4*runtime.GOMAXPROCS(0), synchronous); err != nil {
		return err
	}
	if err := x.writer.prepare(sqlBegin, sqlCommit, sqlRollback, sqlTouch, sqlCount, sqlInsertBlob, sqlDeleteBlob, sqlInsertRef,
		sqlDeleteRef, sqlInsertDebt, sqlDeleteDebt, sqlOweUnlink, sqlPayUnlink, sqlTotals, sqlReadPair, sqlReviseRef, sqlMove, sqlUse,
		sqlUnuse, sqlReadBlob); err != nil {
		return err
	}
	reads := []string{sqlReadTotals, sqlReadBlob, sqlReadPair, sqlReadBlobs, sqlReadMirrors, sqlReadUnlinks, sqlReadDue, sqlReadUsage}
	for _, by := range append([]string{"", byDigest}, idColumns[:]...) {
		reads = append(reads, sqlReadPairs(by, false), sqlReadPairs(by, true))
	}
	for _, column := range idColumns {
		reads = append(reads, sqlReadID(column))
	}
	return x.readers.prepare(reads...)
}

// connect opens a pool of that many connections, which are kept.
func connect(path string, connections int, synchronous string) (*sql.DB, error) {
	pragmas := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(" + synchronous + ")", fmt.Sprintf("cache_size(-%d)", cacheKiB), "busy_timeout(10000)",
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (s *statements) prepare(queries ...string) error {
	s.prepared = make(map[string]*sql.Stmt, len(queries))
	for _, query := range queries {
		stmt, err := s.db.Prepare(query)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", query, err)
		}
		s.prepared[query] = stmt
	}
	return nil
}

func (s *statements) exec(query string, args ...any) error {
	_, err := s.prepared[query].Exec(args...)
	return err
}

func (s *statements) close() error {
	var err error
	for _, stmt := range s.prepared {
		err = errors.Join(err, stmt.Close())
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}

// begin checks the format, or makes the tables of a new index, and settles the
// organization.
func (x *Index) begin(config *engine.IndexConfig) error {
	tx, err := x.writer.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // fails after a commit
	var version int
	if err := tx.QueryRow(`PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	switch version {
	case formatVersion:
	case 0:
		if _, err := tx.Exec(schema); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: index format %d, this program knows %d", storage.ErrVersion, version, formatVersion)
	}
	var recorded string
	err = tx.QueryRow(`SELECT value FROM meta WHERE name = 'organization'`).Scan(&recorded)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	x.organization = storage.OrganizationMode(recorded)
	if config.Organization != "" {
		x.organization = config.Organization
	} else if recorded == "" {
		x.organization = storage.OrganizationBySession
	}
	if _, err := tx.Exec(`REPLACE INTO meta VALUES ('organization', ?)`, string(x.organization)); err != nil {
		return err
	}
	return tx.Commit()
}

// Organization is the store's mode, as recorded.
func (x *Index) Organization() storage.OrganizationMode { return x.organization }

// Touch notes when a blob was read. It is written with the next change.
func (x *Index) Touch(key storage.BlobKey, at time.Time) { x.touches.Add(key, at) }

// Size is how many bytes the database and its log take up.
func (x *Index) Size(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var size int64
	for _, name := range [...]string{x.place.Path, x.place.Path + "-wal"} {
		info, err := os.Stat(name)
		switch {
		case err == nil:
			size += info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return 0, x.wrap(err)
		}
	}
	return size, nil
}

// Close writes the times of access that wait and closes the database.
func (x *Index) Close() error {
	var err error
	if x.doubt.Err() == nil {
		err = x.change(context.Background(), func() error { return nil })
	}
	return x.wrap(errors.Join(err, x.closeAll()))
}

// closeAll closes the readers first: SQLite empties its log into the database
// when the last connection goes.
func (x *Index) closeAll() error {
	return errors.Join(x.readers.close(), x.writer.close(), x.place.Leave())
}

// wrap adds the identity of the index to an error.
func (x *Index) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("index %s: %w", x.place.Path, storage.Classify(err))
}
