package strategy

import (
	"bytes"
	"context"
	"iter"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/bench/strategy/kv"
	"github.com/mediabolt/mediabolt/engine"
)

// bboltUpdate commits every operation in a transaction of its own.
var bboltUpdate = Strategy{Name: "bbolt-update", Open: openBolt((*bolt.DB).Update)}

// bboltBatch leaves it to db.Batch to gather operations: it commits when 1000
// have come together or after 10 ms, its defaults, whichever is first.
var bboltBatch = Strategy{Name: "bbolt-batch", Open: openBolt((*bolt.DB).Batch)}

// boltMap is how far bbolt's map reaches before it must be made anew, which waits
// for every reader; as in boltindex.
const boltMap = 1 << 30

// openBolt opens a bbolt file with the settings of etcd, bbolt's largest user:
// the list of free pages is not written, so that a commit writes less, and
// opening reads the whole file instead.
func openBolt(update func(*bolt.DB, func(*bolt.Tx) error) error) func(context.Context, engine.IndexConfig) (engine.Index, error) {
	return func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		return kv.Open(ctx, config, kv.Options{Name: "bbolt.db", Open: func(path string) (kv.Store, error) {
			db, err := bolt.Open(path, frame.Mode(&config), &bolt.Options{
				FreelistType: bolt.FreelistMapType, NoFreelistSync: true, InitialMmapSize: boltMap, NoSync: config.NoSync,
			})
			if err != nil {
				return nil, err
			}
			err = db.Update(func(tx *bolt.Tx) error {
				for _, table := range kv.AllTables {
					if _, err := tx.CreateBucketIfNotExists([]byte{byte(table)}); err != nil {
						return err
					}
				}
				return nil
			})
			return &boltStore{db, update}, err
		}})
	}
}

// boltStore keeps each table in a bucket.
type boltStore struct {
	db     *bolt.DB
	update func(*bolt.DB, func(*bolt.Tx) error) error
}

func (s *boltStore) View(fn func(kv.Reader) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return fn(boltTxn{tx}) })
}

func (s *boltStore) Update(fn func(kv.Txn) error) error {
	return s.update(s.db, func(tx *bolt.Tx) error { return fn(boltTxn{tx}) })
}

func (s *boltStore) Close() error { return s.db.Close() }

type boltTxn struct{ tx *bolt.Tx }

func (t boltTxn) bucket(table kv.Table) *bolt.Bucket { return t.tx.Bucket([]byte{byte(table)}) }

func (t boltTxn) Get(table kv.Table, key []byte) ([]byte, bool, error) {
	value := t.bucket(table).Get(key)
	return value, value != nil, nil
}

func (t boltTxn) From(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		cursor := t.bucket(table).Cursor()
		for k, v := cursor.Seek(key); k != nil; k, v = cursor.Next() {
			if !yield(kv.Row{Key: k, Value: v}, nil) {
				return
			}
		}
	}
}

func (t boltTxn) Before(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		cursor := t.bucket(table).Cursor()
		var k, v []byte
		if k, _ = cursor.Seek(key); k == nil {
			k, v = cursor.Last()
		} else {
			k, v = cursor.Prev()
		}
		for ; k != nil; k, v = cursor.Prev() {
			if !yield(kv.Row{Key: k, Value: v}, nil) {
				return
			}
		}
	}
}

func (t boltTxn) Put(table kv.Table, key, value []byte) error { return t.bucket(table).Put(key, value) }

// Delete spares bbolt the copying of the page of a key that is not there.
func (t boltTxn) Delete(table kv.Table, key []byte) error {
	bucket := t.bucket(table)
	if k, _ := bucket.Cursor().Seek(key); !bytes.Equal(k, key) {
		return nil
	}
	return bucket.Delete(key)
}
