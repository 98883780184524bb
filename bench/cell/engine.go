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
	texts []string // some of their contents, in base64
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
	s.sample()
	s.start, err = s.operation(ctx)
	return &s.subject, err
}

// texts is how many contents in base64 are kept: encoding them again would be
// measured, and be most of it.
const texts = 16

// sample makes the IDs of the rows with files, and some of their contents.
func (s *engineSubject) sample() {
	content := bench.NewContent(s.rows.Size)
	for i := range s.rows.Files {
		s.ids = append(s.ids, s.rows.ID(content, s.rows.File(i)).String())
		if len(s.texts) < texts {
			s.texts = append(s.texts, content.Base64())
		}
	}
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
	case Store, StoreText:
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
		ids, err := s.stored(ctx)
		return s.deleter(ctx, ids), err
	case DeleteOld:
		return s.deleter(ctx, s.ids), nil
	}
	return nil, errors.New("no such operation of a store: " + s.cell.Op)
}

func (s *engineSubject) some() *storage.StorageReference {
	return &storage.StorageReference{ID: s.ids[rand.IntN(len(s.ids))]}
}

func (s *engineSubject) retrieve(ctx context.Context) error {
	content, err := s.store.Retrieve(ctx, s.some())
	if err == nil && len(content.Data) < s.rows.Size {
		err = fmt.Errorf("retrieved %d characters", len(content.Data))
	}
	return err
}

// storing stores contents, of which Cell.Dup per cent are there; kept is called
// with each reference, if it is not nil.
func (s *engineSubject) storing(ctx context.Context, kept func(id string)) func() error {
	put := s.putBytes(ctx)
	if s.cell.Op == StoreText {
		put = s.putText(ctx)
	}
	return func() error {
		n := rand.IntN(1000)
		ref, err := put(rand.IntN(100) < s.cell.Dup, storage.MediaMetadata{
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

// put stores a content that is there, or a new one.
type put func(there bool, m storage.MediaMetadata) (*storage.StorageReference, error)

func (s *engineSubject) putBytes(ctx context.Context) put {
	fresh, again := bench.NewContent(s.cell.Size), bench.NewContent(s.rows.Size)
	info := storage.MediaInfo{Type: "document", MimeType: mimeType}
	return func(there bool, m storage.MediaMetadata) (*storage.StorageReference, error) {
		var data []byte
		if there {
			data = s.rows.Content(again, s.rows.File(rand.IntN(s.rows.Files)))
		} else {
			data = fresh.Next()
		}
		return s.store.StoreReader(ctx, bytes.NewReader(data), info, m)
	}
}

func (s *engineSubject) putText(ctx context.Context) put {
	fresh := bench.NewContent(s.cell.Size)
	return func(there bool, m storage.MediaMetadata) (*storage.StorageReference, error) {
		content := storage.MediaContent{Type: "document", MimeType: mimeType}
		if there {
			content.Data = s.texts[rand.IntN(len(s.texts))]
		} else {
			fresh.Next()
			content.Data = fresh.Base64()
		}
		return s.store.Store(ctx, &content, m)
	}
}

// mimeType keeps sniffing out of what is measured.
const mimeType = "application/octet-stream"

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

// stored stores references, and returns their IDs.
func (s *engineSubject) stored(ctx context.Context) (ids []string, err error) {
	var mu sync.Mutex
	stores := sync.Pool{New: func() any {
		return s.storing(ctx, func(id string) { mu.Lock(); ids = append(ids, id); mu.Unlock() })
	}}
	err = everywhere(int(s.cell.Time.Seconds()*removable/2), func() error {
		store := stores.Get().(func() error)
		defer stores.Put(store)
		return store()
	})
	s.added.Store(0)
	return ids, err
}

// deleter deletes references until all are deleted.
func (s *engineSubject) deleter(ctx context.Context, ids []string) func(int) func() error {
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
	}
}
