package strategy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/bench/strategy/kv"
	"github.com/mediabolt/mediabolt/engine"
)

// pebbleSynced is a log-structured merge tree whose log gathers the syncs of all
// who commit at the same time.
var pebbleSynced = Strategy{
	Name: "pebble",
	Open: func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		return kv.Open(ctx, config, kv.Options{
			Name: "pebble",
			Open: func(dir string) (kv.Store, error) { return openPebble(dir, &config) },
			// A log has 70 MB allocated before anything is in it.
			Size: func(s kv.Store) (int64, error) {
				return int64(s.(*pebbleStore).db.Metrics().DiskSpaceUsage()), nil
			},
		})
	},
}

// Settings of CockroachDB, pebble's largest user (its pkg/storage/pebble.go):
// size of a memtable in bytes, how many L0 sublevels start a compaction and stop
// writes, size of the first level in bytes, bits of a Bloom filter per key.
const (
	pebbleMemTable   = 64 << 20
	pebbleL0Compact  = 2
	pebbleL0Stop     = 1000
	pebbleBaseLevel  = 64 << 20
	pebbleBloomBits  = 10
	pebbleBlockCache = 64 << 20
)

func openPebble(dir string, config *engine.IndexConfig) (*pebbleStore, error) {
	cache := pebble.NewCache(pebbleBlockCache)
	defer cache.Unref()
	options := &pebble.Options{
		Cache: cache, FormatMajorVersion: pebble.FormatNewest, MemTableSize: pebbleMemTable,
		L0CompactionThreshold: pebbleL0Compact, L0StopWritesThreshold: pebbleL0Stop, LBaseMaxBytes: pebbleBaseLevel,
		Logger: pebbleLogger{frame.Logger(config)},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(pebbleBloomBits)
	}
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, err
	}
	return &pebbleStore{db: db, sync: !config.NoSync}, nil
}

type pebbleStore struct {
	db   *pebble.DB
	sync bool

	// applying is held from the first read of a transaction until its batch can be
	// read, and not while the batch is synced: pebble syncs many at once.
	applying sync.Mutex
}

func (s *pebbleStore) View(fn func(kv.Reader) error) error {
	snapshot := s.db.NewSnapshot()
	defer func() { _ = snapshot.Close() }() // fails for one that is closed
	return fn(pebbleReader{snapshot})
}

// Update reads batches that may not be durable yet. They stand before its own in
// the log, so its sync makes them durable too; without a batch of its own it syncs
// an empty record.
func (s *pebbleStore) Update(fn func(kv.Txn) error) error {
	batch := s.db.NewBatch()
	if err := s.apply(batch, fn); err != nil {
		return errors.Join(err, batch.Close())
	}
	switch {
	case !s.sync:
		return batch.Close()
	case batch.Empty():
		return errors.Join(s.db.LogData(nil, pebble.Sync), batch.Close())
	}
	return errors.Join(batch.SyncWait(), batch.Close())
}

func (s *pebbleStore) apply(batch *pebble.Batch, fn func(kv.Txn) error) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := fn(pebbleTxn{pebbleReader{s.db}, batch}); err != nil || batch.Empty() {
		return err
	}
	if !s.sync {
		return s.db.Apply(batch, pebble.NoSync)
	}
	return s.db.ApplyNoSyncWait(batch, pebble.Sync)
}

func (s *pebbleStore) Close() error { return s.db.Close() }

type pebbleReader struct{ from pebble.Reader }

func (r pebbleReader) Get(table kv.Table, key []byte) ([]byte, bool, error) {
	value, closer, err := r.from.Get(kv.Key(table, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	return slices.Clone(value), true, closer.Close()
}

func (r pebbleReader) From(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	options := &pebble.IterOptions{LowerBound: kv.Key(table, key), UpperBound: kv.Key(table+1, nil)}
	return r.walk(options, (*pebble.Iterator).First, (*pebble.Iterator).Next)
}

func (r pebbleReader) Before(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	options := &pebble.IterOptions{LowerBound: kv.Key(table, nil), UpperBound: kv.Key(table, key)}
	return r.walk(options, (*pebble.Iterator).Last, (*pebble.Iterator).Prev)
}

func (r pebbleReader) walk(options *pebble.IterOptions, begin, step func(*pebble.Iterator) bool) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		rows, err := r.from.NewIter(options)
		if err != nil {
			yield(kv.Row{}, err)
			return
		}
		for ok := begin(rows); ok; ok = step(rows) {
			value, err := rows.ValueAndErr()
			if !yield(kv.Row{Key: rows.Key()[1:], Value: value}, err) {
				_ = rows.Close() // what it fails with was yielded
				return
			}
		}
		if err := rows.Close(); err != nil {
			yield(kv.Row{}, err)
		}
	}
}

type pebbleTxn struct {
	pebbleReader
	batch *pebble.Batch
}

func (t pebbleTxn) Put(table kv.Table, key, value []byte) error {
	return t.batch.Set(kv.Key(table, key), value, nil)
}

func (t pebbleTxn) Delete(table kv.Table, key []byte) error {
	return t.batch.Delete(kv.Key(table, key), nil)
}

// pebbleLogger passes on what pebble has to say.
type pebbleLogger struct{ to *slog.Logger }

func (l pebbleLogger) Infof(format string, args ...any)  { l.to.Debug(fmt.Sprintf(format, args...)) }
func (l pebbleLogger) Errorf(format string, args ...any) { l.to.Error(fmt.Sprintf(format, args...)) }

// Fatalf must not return: pebble calls it when a commit fails in its log.
func (l pebbleLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
