package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"crypto/sha256"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// FillIndex makes the index of a store in dir with n references to n blobs, as
// stores through the engine would leave it, without the files.
func FillIndex(ctx context.Context, dir string, n int) error {
	ctl := filepath.Join(dir, blobs.ControlDir)
	if err := os.MkdirAll(ctl, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(ctl)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // was only read
	index, err := boltindex.Open(ctx, boltindex.Config{
		Root: root, Create: true, NoSync: true, Organization: storage.OrganizationBySession,
	})
	if err != nil {
		return err
	}
	if err := fill(ctx, index, n); err != nil {
		return err
	}
	debt, err := index.Debt(ctx)
	if err != nil {
		return err
	}
	if err := index.Settle(ctx, debt); err != nil {
		return err
	}
	return index.Close()
}

// fillers is how many goroutines fill an index: as many as one transaction
// takes, which makes the fewest transactions.
const fillers = 512

func fill(ctx context.Context, index *boltindex.Index, n int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	failures := make(chan error, fillers)
	for range fillers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := index.Add(ctx, filled(uint64(i))); err != nil {
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

// filled is the n-th row: its UUID is older than any of today's.
func filled(n uint64) *storage.Addition {
	var u storage.UUID
	binary.BigEndian.PutUint64(u[:], n<<16|0x7000|n&0xfff)
	digest := storage.Digest(sha256.Sum256(u[:]))
	id := storage.ID{UUID: u}
	copy(id.Hash[:], digest[:])
	m := metadata(n)
	m.RunID, m.UserID = fmt.Sprintf("run-%d", n%1000), fmt.Sprintf("user-%d", n%10000)
	key := storage.DigestKey(digest)
	return &storage.Addition{
		Staged: true,
		Ref:    storage.RefRow{UUID: u, Blob: key, Type: info.Type, MimeType: info.MimeType, Metadata: m},
		Blob: storage.BlobRow{
			Key: key, Path: blobs.Dir(storage.OrganizationBySession, &m) + "/" + blobs.FileName(id, info.MimeType),
			Organization: storage.OrganizationBySession, Size: storeSize, Digest: digest, MimeType: info.MimeType,
		},
	}
}
