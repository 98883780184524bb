package boltindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// An index of an older format is brought up to date by the next opening:
//
//  1. every page is checked; bbolt gets the rows of the log, still in the old format
//  2. index.db is copied to index.bolt.db.format-<n>, durably
//  3. one transaction takes the steps from format to format, and names the new one
//
// A crash leaves the old format, or the new one. To go back, close the store, remove
// index.db, index.sums, log.0 and log.1, and rename the copy to index.db: what has
// changed since is not in it. A mediabolt of the old format refuses the new one, a
// newer format than this program's is refused.
type migration struct {
	from uint32
	do   func(tx *bolt.Tx) error // to the format after
}

// migrations are the steps, in order, each with a test of its own. A step reads rows
// of its format: who changes how these are decoded leaves the step a decoder.
var migrations = []migration{{3, countUsage}}

// CopyPrefix is what the name of a copy begins with, followed by its format.
const CopyPrefix = fileName + ".format-"

// migrate brings an index up to date that was just opened, pages and all. One of a
// format that no step leads from is left as it is.
func (x *Index) migrate(noSync bool) error {
	format, applied, err := x.oldFormat()
	if err != nil || format >= formatVersion || len(migrations) == 0 || format < migrations[0].from {
		return err
	}
	wrap := func(err error) error {
		return fmt.Errorf("bring index format %d up to %d: %w", format, formatVersion, err)
	}
	if x.bolt.pages.sums.behind {
		return wrap(fmt.Errorf("%w: the last meta page of %s is damaged", storage.ErrCorrupted, fileName))
	}
	if err := x.checkPages(); err != nil {
		return wrap(err)
	}
	if err := x.applyOldLog(noSync, applied); err != nil {
		return wrap(err)
	}
	kept := fmt.Sprintf("%s%d", CopyPrefix, format)
	if err := x.keepCopy(kept, noSync); err != nil {
		return wrap(fmt.Errorf("copy to %s: %w", kept, err))
	}
	err = x.writePages(func(tx *bolt.Tx) error {
		for _, m := range migrations {
			if m.from < format {
				continue
			}
			if err := m.do(tx); err != nil {
				return fmt.Errorf("from %d: %w", m.from, err)
			}
		}
		return tx.Bucket(bucketMeta.name()).Put(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion))
	})
	if err != nil {
		return wrap(err)
	}
	x.log.Info("brought the index up to date", "index", x.path, "from", format, "to", formatVersion, "copy", kept)
	return nil
}

// oldFormat reads from the meta bucket what every format has there: the format, and
// up to which record bbolt has the log. It notes the store's ID.
func (x *Index) oldFormat() (format uint32, applied uint64, err error) {
	defer guard(&err)
	defer faultsPanic()()
	tx, err := x.bolt.db.Begin(false)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	s := &state{pages: x.bolt.pages, txid: uint64(tx.ID()), end: uint64(tx.Size() / x.bolt.pages.size)}
	leaf, i, err := s.find(tree{page: uint64(tx.Cursor().Bucket().Root())}, bucketMeta.name())
	if err == nil && leaf == nil {
		err = fmt.Errorf("%w: no bucket %s", storage.ErrCorrupted, bucketMeta)
	}
	if err != nil {
		return 0, 0, err
	}
	if s.trees[bucketMeta], err = parseBucket(leaf.value(i)); err != nil {
		return 0, 0, err
	}
	var values [3][]byte
	for i, key := range [...][]byte{keyFormat, keyApplied, keyStore} {
		if values[i], err = s.get(bucketMeta, key); err != nil {
			return 0, 0, err
		}
	}
	if len(values[0]) != 4 {
		return 0, 0, fmt.Errorf("%w: format %x", storage.ErrCorrupted, values[0])
	}
	if len(values[1]) == 8 {
		applied = binary.BigEndian.Uint64(values[1])
	}
	copy(x.storeID[:], values[2])
	return binary.BigEndian.Uint32(values[0]), applied, nil
}

// applyOldLog moves to bbolt what the log has for it.
func (x *Index) applyOldLog(noSync bool, applied uint64) (err error) {
	l, err := x.openLog(noSync)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	runs, err := l.unapplied(applied)
	if err != nil || len(runs) == 0 {
		return err
	}
	return x.writePages(func(tx *bolt.Tx) error {
		rows := newTable()
		for _, run := range runs {
			for _, r := range run.records {
				if err := decodeTable(r.body, rows); err != nil {
					return fmt.Errorf("log %s: record %d: %w", logNames[run.segment], r.number, err)
				}
				applied = r.number
			}
		}
		if err := putRows(tx, rows.Scan, fillPercent); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta.name()).Put(keyApplied, binary.BigEndian.AppendUint64(nil, applied))
	})
}

// writePages runs fn in a transaction of bbolt, all pages of which were checked, and
// sums what it has written.
func (x *Index) writePages(fn func(*bolt.Tx) error) error {
	if err := checkFree(x.bolt.file, x.bolt.pages); err != nil {
		return err
	}
	x.bolt.pages.sums.expect()
	if err := x.bolt.update(fn); err != nil {
		// What the meta page says now may not be durable: the next opening sums it.
		x.bolt.pages.sums.settle()
		return err
	}
	return x.bolt.sum()
}

// keepCopy copies index.db, which nobody writes, under another name, as far as it has
// pages: bbolt makes it much longer than that.
func (x *Index) keepCopy(name string, noSync bool) (err error) {
	temp := name + "." + uuid.NewString() + ".tmp" // matches tempPattern
	f, err := x.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, x.mode)
	if err != nil {
		return err
	}
	defer func() {
		if e := x.root.Remove(temp); err != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	now, _, err := readMetas(x.bolt.file)
	if err == nil {
		_, err = io.Copy(f, io.NewSectionReader(x.bolt.file, 0, int64(now.end)*now.pageSize))
	}
	if err == nil && !noSync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := x.root.Rename(temp, name); err != nil || noSync {
		return err
	}
	return x.syncDir()
}

// countUsage leads from format 3 to 4: usage rows are what the references of the
// lists add up to, no reference expires, and sidecars of shared blobs may tell of
// references that have ended.
func countUsage(tx *bolt.Tx) error {
	for _, b := range [...]bucket{bucketByExpiry, bucketUsage} {
		if tx.Bucket(b.name()) != nil {
			return fmt.Errorf("%w: there is a bucket %s, which format 3 did not have", storage.ErrCorrupted, b)
		}
		if _, err := tx.CreateBucket(b.name()); err != nil {
			return err
		}
	}
	for _, k := range usageKinds {
		if err := countList(tx, k.list, k.prefix); err != nil {
			return fmt.Errorf("count %s: %w", k.list, err)
		}
	}
	return markEnded(tx)
}

// countList writes the usage rows of one kind of ID.
func countList(tx *bolt.Tx, list bucket, prefix byte) error {
	var sum usageRecord
	var of []byte // whose sum it is
	put := func() error {
		if of == nil {
			return nil
		}
		row, err := encode(&sum)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketUsage.name()).Put(append([]byte{prefix}, of...), row)
	}
	c := tx.Bucket(list.name()).Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		if len(key) != listHash+len(storage.UUID{}) {
			return fmt.Errorf("%w: key %x", storage.ErrCorrupted, key)
		}
		if !bytes.Equal(of, key[:listHash]) {
			if err := put(); err != nil {
				return err
			}
			of, sum = bytes.Clone(key[:listHash]), usageRecord{}
		}
		size, err := sizeOf(tx, storage.UUID(key[listHash:]))
		if err != nil {
			return err
		}
		sum.Refs++
		sum.Bytes += size
	}
	return put()
}

// sizeOf is the size of the blob of a reference.
func sizeOf(tx *bolt.Tx, id storage.UUID) (int64, error) {
	ref, err := decodeRef(id, tx.Bucket(bucketRefs.name()).Get(id[:]))
	if err != nil {
		return 0, err
	}
	blob, err := decodeBlob(ref.Blob, tx.Bucket(bucketBlobs.name()).Get([]byte(ref.Blob)))
	return blob.Size, err
}

// markPage is how many rows of blobs are changed between two positions of the cursor.
const markPage = 1024

// markEnded notes of every blob that others may have shared that one has ended.
func markEnded(tx *bolt.Tx) error {
	b := tx.Bucket(bucketBlobs.name())
	type blobRow struct{ key, row []byte }
	var after []byte
	for {
		var page []blobRow
		c := b.Cursor()
		key, row := c.Seek(append(after, 0))
		for ; key != nil && len(page) < markPage; key, row = c.Next() {
			after = bytes.Clone(key)
			if _, shared := storage.BlobKey(key).Digest(); !shared {
				continue
			}
			blob, err := decodeBlob(storage.BlobKey(key), row)
			if err != nil {
				return err
			}
			blob.Ended = max(blob.Ended, 1)
			changed, err := encodeBlob(&blob)
			if err != nil {
				return err
			}
			page = append(page, blobRow{after, changed})
		}
		for _, p := range page {
			if err := b.Put(p.key, p.row); err != nil {
				return err
			}
		}
		if key == nil {
			return nil
		}
	}
}
