package strategy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/bench/strategy/kv"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// loses is what the file of the JSON strategies has no place for.
const loses = "at every restart all references (their IDs, lists, labels and times), all that the tree is owed, " +
	"checksums, the organization, and whole blobs that are stored without deduplication"

// jsonNoSync keeps blobs in one JSON file, as local file stores are found to do:
// each change writes it anew under another name and renames it.
var jsonNoSync = Strategy{Name: "json-nosync", Open: openJSON(false), Loses: loses + "; by a power cut any change, or the file"}

// jsonSync is the same with a sync of the file before the rename, and of the
// directory after it.
var jsonSync = Strategy{Name: "json-sync", Open: openJSON(true), Loses: loses}

func openJSON(synced bool) func(context.Context, engine.IndexConfig) (engine.Index, error) {
	return func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		return kv.Open(ctx, config, kv.Options{
			Name: "index.json",
			Open: func(path string) (kv.Store, error) {
				s := &jsonStore{path: path, sync: synced && !config.NoSync, mode: frame.Mode(&config), blobs: map[string]jsonBlob{}}
				return s, s.load()
			},
			// In memory and on disk, for most of it has no other place.
			Size: func(s kv.Store) (int64, error) { return s.(*jsonStore).size() },
		})
	}
}

// jsonBlob is an entry of the file, under "sha256:" and the digest in hexadecimal.
type jsonBlob struct {
	Hash         string    `json:"hash"`
	Path         string    `json:"path"`
	Size         int64     `json:"size"`
	MimeType     string    `json:"mime_type"`
	RefCount     int64     `json:"ref_count"`
	CreatedAt    time.Time `json:"created_at"`
	LastAccessed time.Time `json:"last_accessed"`
}

// jsonStore keeps every row in memory, and blobs, as far as an entry has fields
// for them, in the file.
type jsonStore struct {
	path string
	sync bool
	mode fs.FileMode

	mu    sync.RWMutex // guards the rest; held over the writing of the file
	rows  btree.Map[string, []byte]
	bytes int64               // of rows
	blobs map[string]jsonBlob // what the file holds
}

func (s *jsonStore) View(fn func(kv.Reader) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return fn(jsonReader{s})
}

func (s *jsonStore) Update(fn func(kv.Txn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &jsonTxn{jsonReader: jsonReader{s}}
	if err := fn(t); err != nil {
		return err
	}
	if err := s.keep(t.changes); err != nil {
		return err
	}
	for _, c := range t.changes {
		s.set(c)
	}
	return nil
}

// keep writes the file if blobs are among the changes.
func (s *jsonStore) keep(changes []jsonChange) error {
	changed := false
	for _, c := range changes {
		if kv.Table(c.key[0]) != kv.Blobs {
			continue
		}
		key := storage.BlobKey(c.key[1:])
		digest, dedup := key.Digest()
		if !dedup {
			continue
		}
		name := "sha256:" + digest.String()
		changed = true
		if c.value == nil {
			delete(s.blobs, name)
			continue
		}
		blob, err := kv.DecodeBlob(key, c.value)
		if err != nil {
			return err
		}
		s.blobs[name] = jsonBlob{
			Hash: digest.String(), Path: blob.Path, Size: blob.Size, MimeType: blob.MimeType,
			RefCount: blob.Refs, CreatedAt: blob.CreatedAt, LastAccessed: blob.AccessedAt,
		}
	}
	if !changed {
		return nil
	}
	return s.write()
}

func (s *jsonStore) write() error {
	data, err := json.Marshal(s.blobs)
	if err != nil {
		return err
	}
	temp := s.path + ".tmp"
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, s.mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil && s.sync {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, s.path); err != nil || !s.sync {
		return err
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load reads the file, or writes an empty one. What it has no fields for is zero.
func (s *jsonStore) load() error {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.write()
	} else if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &s.blobs); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrCorrupted, err)
	}
	var totals storage.Counters
	for name, entry := range s.blobs {
		digest, err := storage.ParseDigest(name)
		if err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupted, err)
		}
		totals.Blobs++
		totals.PhysicalBytes += entry.Size
		key := storage.DigestKey(digest)
		s.set(jsonChange{string(kv.Key(kv.Blobs, []byte(key))), kv.EncodeBlob(&storage.BlobRow{
			Key: key, Path: entry.Path, Size: entry.Size, MimeType: entry.MimeType,
			Refs: entry.RefCount, CreatedAt: entry.CreatedAt, AccessedAt: entry.LastAccessed,
		})})
	}
	s.set(jsonChange{string(kv.Key(kv.Totals, []byte{0})), kv.EncodeTotals(totals)})
	return nil
}

// set makes a change in memory.
func (s *jsonStore) set(c jsonChange) {
	before, was := s.rows.Get(c.key)
	if was {
		s.bytes -= int64(len(c.key) + len(before))
	}
	if c.value == nil {
		s.rows.Delete(c.key)
		return
	}
	s.rows.Set(c.key, c.value)
	s.bytes += int64(len(c.key) + len(c.value))
}

// size is the length of the file, and of the rows, which have no other place.
func (s *jsonStore) size() (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	info, err := os.Stat(s.path)
	if err != nil {
		return 0, err
	}
	return info.Size() + s.bytes, nil
}

func (s *jsonStore) Close() error { return nil }

type jsonReader struct{ s *jsonStore }

func (r jsonReader) Get(table kv.Table, key []byte) ([]byte, bool, error) {
	value, found := r.s.rows.Get(string(kv.Key(table, key)))
	return value, found, nil
}

func (r jsonReader) From(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		r.s.rows.Ascend(string(kv.Key(table, key)), func(k string, value []byte) bool {
			return kv.Table(k[0]) == table && yield(kv.Row{Key: []byte(k[1:]), Value: value}, nil)
		})
	}
}

func (r jsonReader) Before(table kv.Table, key []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		end := string(kv.Key(table, key))
		r.s.rows.Descend(end, func(k string, value []byte) bool {
			return k == end || kv.Table(k[0]) == table && yield(kv.Row{Key: []byte(k[1:]), Value: value}, nil)
		})
	}
}

// jsonTxn gathers changes.
type jsonTxn struct {
	jsonReader
	changes []jsonChange
}

// jsonChange is a row to be set, or to be deleted where value is nil.
type jsonChange struct {
	key   string
	value []byte
}

func (t *jsonTxn) Put(table kv.Table, key, value []byte) error {
	t.changes = append(t.changes, jsonChange{string(kv.Key(table, key)), value})
	return nil
}

func (t *jsonTxn) Delete(table kv.Table, key []byte) error {
	t.changes = append(t.changes, jsonChange{string(kv.Key(table, key)), nil})
	return nil
}
