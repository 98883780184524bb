package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"crypto/sha256"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// OpenIndex is how an index is opened, as in engine.FileStoreConfig.
type OpenIndex = func(ctx context.Context, config engine.IndexConfig) (engine.Index, error)

// Rows are references to blobs of their own, numbered from 1. Some have a file,
// spread evenly over all, so that a large index can be read through without
// terabytes of blobs.
type Rows struct {
	Count int // how many
	Files int // how many of them have a file: at most Count
	Size  int // of each blob, in bytes
}

// step is how far rows with files are apart.
func (r Rows) step() uint64 { return uint64(r.Count / max(r.Files, 1)) }

// HasFile says whether a row is among those with a file.
func (r Rows) HasFile(n uint64) bool {
	return r.Files > 0 && n%r.step() == 0 && n/r.step() <= uint64(r.Files)
}

// File is the number of the i-th row with a file, counted from 0.
func (r Rows) File(i int) uint64 { return uint64(i+1) * r.step() }

// Content is the bytes of the n-th row, good until the next call on c.
func (r Rows) Content(c *Content, n uint64) []byte { return c.Same(n) }

// uuid is that of the n-th row: in order of n, and before any of today's.
func uuid(n uint64) (u storage.UUID) {
	binary.BigEndian.PutUint64(u[:], n<<16|0x7000|n&0xfff)
	return u
}

// ID is that of the n-th row; c makes the content if it has one.
func (r Rows) ID(c *Content, n uint64) storage.ID {
	id := storage.ID{UUID: uuid(n)}
	digest := r.digest(c, n)
	copy(id.Hash[:], digest[:])
	return id
}

func (r Rows) digest(c *Content, n uint64) storage.Digest {
	if r.HasFile(n) {
		return sha256.Sum256(r.Content(c, n))
	}
	u := uuid(n)
	return sha256.Sum256(u[:])
}

// Row is the addition of the n-th row, which has all four IDs.
func (r Rows) Row(c *Content, n uint64) *storage.Addition {
	u, digest := uuid(n), r.digest(c, n)
	id := storage.ID{UUID: u}
	copy(id.Hash[:], digest[:])
	m := metadata(n)
	m.ConversationID = fmt.Sprintf("conv-%d", n%5000)
	m.RunID, m.UserID = fmt.Sprintf("run-%d", n%1000), fmt.Sprintf("user-%d", n%10000)
	key := storage.DigestKey(digest)
	add := &storage.Addition{
		Staged: true,
		Ref:    storage.RefRow{UUID: u, Blob: key, Type: info.Type, MimeType: info.MimeType, Metadata: m},
		Blob: storage.BlobRow{
			Key: key, Path: blobs.Dir(storage.OrganizationBySession, &m) + "/" + blobs.FileName(id, info.MimeType),
			Organization: storage.OrganizationBySession, Size: int64(r.Size), Digest: digest, MimeType: info.MimeType,
		},
	}
	if r.HasFile(n) {
		add.Blob.CRC = crc32.Checksum(r.Content(c, n), crc32.MakeTable(crc32.Castagnoli))
	}
	return add
}

// FillIndex makes the index of a store in dir with n references to n blobs, as
// stores through the engine would leave it, without the files.
func FillIndex(ctx context.Context, dir string, n int) error {
	return Fill(ctx, dir, Rows{Count: n, Size: storeSize}, func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		return boltindex.Open(ctx, boltindex.Config(config))
	})
}

// fillers is how many goroutines fill an index: as many as one transaction
// takes, which makes the fewest transactions.
const fillers = 512

// fillChunk is after how many rows what they owe to the tree is settled, so that
// the debt of all of them is never in memory.
const fillChunk = 100_000

// Fill makes a store in dir whose index has rows, and the files of those that
// have one. Nothing of it is durable until it returns, if then: the kernel is
// left to write it.
func Fill(ctx context.Context, dir string, rows Rows, open OpenIndex) (err error) {
	ctl := filepath.Join(dir, blobs.ControlDir)
	if err := os.MkdirAll(ctl, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(ctl)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // was only read
	index, err := open(ctx, engine.IndexConfig{
		Root: root, Create: true, NoSync: true, Organization: storage.OrganizationBySession, FileMode: 0o600,
		Sync: func([]storage.BlobKey) error { return nil },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	for first := 1; first <= rows.Count; first += fillChunk {
		if err := fillRows(ctx, index, dir, rows, first, min(first+fillChunk-1, rows.Count)); err != nil {
			return err
		}
		debt, err := index.Debt(ctx)
		if err != nil {
			return err
		}
		if err := index.Settle(ctx, debt); err != nil {
			return err
		}
	}
	return nil
}

// fillRows adds the rows from first to last.
func fillRows(ctx context.Context, index engine.Index, dir string, rows Rows, first, last int) error {
	next := atomic.Int64{}
	next.Store(int64(first))
	f := &filler{index: index, dir: dir, rows: rows}
	if rows.Files > 0 {
		f.content = NewContent(rows.Size)
	}
	failures := make(chan error, fillers)
	var wg sync.WaitGroup
	for range fillers {
		wg.Go(func() {
			for n := next.Add(1) - 1; n <= int64(last); n = next.Add(1) - 1 {
				if err := f.add(ctx, uint64(n)); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// filler adds rows and makes their files.
type filler struct {
	index   engine.Index
	dir     string
	rows    Rows
	mu      sync.Mutex // guards content
	content *Content   // nil: no row has a file
}

func (f *filler) add(ctx context.Context, n uint64) error {
	if !f.rows.HasFile(n) {
		_, err := f.index.Add(ctx, f.rows.Row(nil, n))
		return err
	}
	f.mu.Lock()
	add := f.rows.Row(f.content, n)
	name := filepath.Join(f.dir, filepath.FromSlash(add.Blob.Path))
	err := os.MkdirAll(filepath.Dir(name), 0o700)
	if err == nil {
		err = os.WriteFile(name, f.rows.Content(f.content, n), 0o600)
	}
	f.mu.Unlock()
	if err == nil {
		_, err = f.index.Add(ctx, add)
	}
	return err
}
