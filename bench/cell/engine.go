package cell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/bench"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// engineSubject is a whole store, durable and with deduplication.
type engineSubject struct {
	subject
	cell  *Cell
	rows  bench.Rows
	store *engine.FileStore
	ids   []string // of the rows with files
}

func openEngine(ctx context.Context, c *Cell, dir string) (*subject, error) {
	s := &engineSubject{cell: c, rows: c.Rows()}
	var index engine.Index
	var hooked atomic.Int64
	var err error
	if s.store, err = openStore(ctx, c, dir, func(x engine.Index) { index = x }, &hooked); err != nil {
		return nil, err
	}
	s.counters = func(ctx context.Context) (storage.Counters, error) {
		st, err := s.store.Stats(ctx)
		return storage.Counters{Refs: st.References, PhysicalBytes: st.PhysicalBytes}, err
	}
	s.commits = counted(func() engine.Index { return index }, &hooked)
	s.close = s.store.Close
	if c.Rows().Count == 0 {
		s.close = func() error { return bench.CloseWhole(ctx, s.store) }
	}
	content := bench.NewContent(c.Size)
	for i := range s.rows.Files {
		s.ids = append(s.ids, s.rows.ID(content, s.rows.File(i)).String())
	}
	s.start, err = s.operation(ctx)
	return &s.subject, err
}

// openStore opens a store on the cell's index, and tells that index.
func openStore(ctx context.Context, c *Cell, dir string, opened func(engine.Index), hooked *atomic.Int64) (*engine.FileStore, error) {
	st, err := named(c.Index)
	if err != nil {
		return nil, err
	}
	return engine.Open(ctx, engine.FileStoreConfig{
		BaseDir: dir, EnableDeduplication: true,
		OpenIndex: func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
			sync := config.Sync
			config.Sync = func(keys []storage.BlobKey) error { hooked.Add(1); return sync(keys) }
			x, err := st.Open(ctx, config)
			if err == nil {
				opened(x)
			}
			return x, err
		},
	})
}

func (s *engineSubject) operation(ctx context.Context) (func(int) func() error, error) {
	reading := func() func() error { return func() error { return s.retrieve(ctx) } }
	switch s.cell.Op {
	case Store:
		return func(int) func() error { return s.storing(ctx, nil) }, nil
	case Retrieve:
		return func(int) func() error { return reading() }, nil
	case Open:
		return func(int) func() error {
			return func() error { return bench.OpenRead(s.store, s.some(), false)() }
		}, nil
	case Mixed:
		return func(int) func() error {
			store, read := s.storing(ctx, nil), reading()
			return func() error {
				if rand.IntN(10) == 0 {
					return store()
				}
				return read()
			}
		}, nil
	case List:
		return func(int) func() error { return func() error { return s.list(ctx) } }, nil
	case Delete:
		return s.deleter(ctx)
	}
	return nil, errors.New("no such operation of a store: " + s.cell.Op)
}

func (s *engineSubject) some() *storage.StorageReference {
	return &storage.StorageReference{ID: s.ids[rand.IntN(len(s.ids))]}
}

func (s *engineSubject) retrieve(ctx context.Context) error {
	content, err := s.store.Retrieve(ctx, s.some())
	if err == nil && len(content.Data) < s.cell.Size {
		err = fmt.Errorf("retrieved %d characters", len(content.Data))
	}
	return err
}

// storing stores contents, of which Cell.Dup per cent are there; kept is called
// with each reference, if it is not nil.
func (s *engineSubject) storing(ctx context.Context, kept func(id string)) func() error {
	c := bench.NewContent(s.cell.Size)
	info := storage.MediaInfo{Type: "document", MimeType: "application/octet-stream"}
	return func() error {
		data := c.Next()
		if rand.IntN(100) < s.cell.Dup {
			data = s.rows.Content(c, s.rows.File(rand.IntN(s.rows.Files)))
		}
		n := rand.IntN(1000)
		ref, err := s.store.StoreReader(ctx, bytes.NewReader(data), info, storage.MediaMetadata{
			SessionID: "session-" + strconv.Itoa(n%100), ConversationID: "conv-1",
			RunID: "run-" + strconv.Itoa(n), UserID: "user-" + strconv.Itoa(n),
		})
		if err != nil {
			return err
		}
		s.added.Add(1)
		if kept != nil {
			kept(ref.ID)
		}
		return nil
	}
}

func (s *engineSubject) list(ctx context.Context) error {
	n := 0
	for _, err := range s.store.List(ctx, engine.Query{SessionID: "session-" + strconv.Itoa(rand.IntN(100))}) {
		if err != nil {
			return err
		}
		if n++; n == listed {
			break
		}
	}
	return nil
}

// deleter stores references, and returns what deletes them.
func (s *engineSubject) deleter(ctx context.Context) (func(int) func() error, error) {
	var mu sync.Mutex
	var ids []string
	stores := sync.Pool{New: func() any {
		return s.storing(ctx, func(id string) { mu.Lock(); ids = append(ids, id); mu.Unlock() })
	}}
	err := everywhere(int(s.cell.Time.Seconds()*removable/2), func() error {
		store := stores.Get().(func() error)
		defer stores.Put(store)
		return store()
	})
	s.added.Store(0)
	var at atomic.Int64
	return func(int) func() error {
		return func() error {
			i := int(at.Add(1)) - 1
			if i >= len(ids) {
				return bench.ErrUsedUp
			}
			err := s.store.Delete(ctx, &storage.StorageReference{ID: ids[i]})
			if err == nil {
				s.removed.Add(1)
			}
			return err
		}
	}, err
}
