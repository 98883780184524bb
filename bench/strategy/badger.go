package strategy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"github.com/dgraph-io/badger/v4"

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/bench/strategy/kv"
	"github.com/mediabolt/mediabolt/engine"
)

// badgerSynced is a log-structured merge tree with optimistic transactions, which
// run again when they meet. With SyncWrites badger syncs its log once for every
// transaction, also when many wait.
var badgerSynced = Strategy{
	Name: "badger",
	Open: func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		return kv.Open(ctx, config, kv.Options{Name: "badger", Concurrent: true, Open: func(dir string) (kv.Store, error) {
			db, err := badger.Open(badger.DefaultOptions(dir).
				WithSyncWrites(!config.NoSync).WithLogger(badgerLogger{frame.Logger(&config)}).WithMetricsEnabled(false))
			if err != nil {
				return nil, err
			}
			return &badgerStore{db}, nil
		}})
	},
}

type badgerStore struct{ db *badger.DB }

func (s *badgerStore) View(fn func(kv.Reader) error) error {
	return s.db.View(func(tx *badger.Txn) error { return fn(badgerTxn{tx}) })
}

// Update needs no sync when it changes nothing: a transaction begins when all
// before it are in the log, synced.
func (s *badgerStore) Update(fn func(kv.Txn) error) error {
	for {
		err := s.db.Update(func(tx *badger.Txn) error { return fn(badgerTxn{tx}) })
		if !errors.Is(err, badger.ErrConflict) {
			return err
		}
	}
}

func (s *badgerStore) Close() error { return s.db.Close() }

type badgerTxn struct{ tx *badger.Txn }

func (t badgerTxn) Get(table kv.Table, key []byte) ([]byte, bool, error) {
	item, err := t.tx.Get(kv.Key(table, key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	value, err := item.ValueCopy(nil)
	return value, err == nil, err
}

func (t badgerTxn) From(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return t.walk(table, key, false)
}

func (t badgerTxn) Before(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return t.walk(table, key, true)
}

func (t badgerTxn) walk(table kv.Table, key []byte, back bool) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		options := badger.DefaultIteratorOptions
		options.Prefix, options.Reverse = kv.Key(table, nil), back
		rows := t.tx.NewIterator(options)
		defer rows.Close()
		start := kv.Key(table, key)
		for rows.Seek(start); rows.Valid(); rows.Next() {
			item := rows.Item()
			if back && bytes.Equal(item.Key(), start) {
				continue // a reverse iterator begins with the key itself
			}
			value, err := item.ValueCopy(nil)
			if !yield(kv.Row{Key: item.Key()[1:], Value: value}, err) {
				return
			}
		}
	}
}

func (t badgerTxn) Put(table kv.Table, key, value []byte) error {
	return t.tx.Set(kv.Key(table, key), value)
}

func (t badgerTxn) Delete(table kv.Table, key []byte) error { return t.tx.Delete(kv.Key(table, key)) }

// badgerLogger passes on what badger has to say.
type badgerLogger struct{ to *slog.Logger }

func (l badgerLogger) Errorf(format string, args ...any)   { l.to.Error(fmt.Sprintf(format, args...)) }
func (l badgerLogger) Warningf(format string, args ...any) { l.to.Warn(fmt.Sprintf(format, args...)) }
func (l badgerLogger) Infof(format string, args ...any)    { l.to.Debug(fmt.Sprintf(format, args...)) }
func (l badgerLogger) Debugf(string, ...any)               {}
