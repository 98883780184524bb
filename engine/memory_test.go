package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// maxGrowth is by how many bytes the heap may grow while a stream of any length
// goes in or out.
const maxGrowth = 16 << 20

// heapGrowth runs fn and returns by how many bytes the heap was larger, at
// most, than before.
func heapGrowth(fn func()) int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, m.HeapAlloc
	done := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		}
	})
	fn()
	close(done)
	sampler.Wait()
	return int64(peak) - int64(before)
}

// generated is a stream of length bytes, no two of its blocks alike, that keeps
// its own digest.
type generated struct {
	block  []byte
	length int64
	at     int64
	sum    hash.Hash
}

func newGenerated(length int64) *generated {
	return &generated{block: bytesOf(1<<20, 1), length: length, sum: sha256.New()}
}

func (g *generated) Read(p []byte) (int, error) {
	if g.at == g.length {
		return 0, io.EOF
	}
	off := g.at % int64(len(g.block))
	if off == 0 {
		binary.BigEndian.PutUint64(g.block, uint64(g.at))
	}
	n := copy(p[:min(int64(len(p)), g.length-g.at)], g.block[off:])
	_, _ = g.sum.Write(p[:n]) // is documented to never fail
	g.at += int64(n)
	return n, nil
}

func TestLargeStreamInConstantMemory(t *testing.T) {
	const length = 2<<30 + 12345
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	stream := newGenerated(length)
	var ref *storage.StorageReference
	var err error
	grew := heapGrowth(func() {
		ref, err = f.StoreReader(ctx, stream, storage.MediaInfo{MimeType: "video/mp4"}, storage.MediaMetadata{})
	})
	if errors.Is(err, storage.ErrDiskSpace) {
		skip.Proof(t, err.Error())
	}
	require.NoError(t, err)
	require.Less(t, grew, int64(maxGrowth), "bytes that storing added to the heap")

	e := mustStat(t, f, ref)
	require.EqualValues(t, length, e.Size)
	require.Equal(t, storage.Digest(stream.sum.Sum(nil)), e.Digest)

	var read int64
	digest := sha256.New()
	grew = heapGrowth(func() {
		var blob *engine.Blob
		if blob, err = f.Open(ctx, ref); err == nil {
			read, err = blob.WriteTo(digest)
			err = errors.Join(err, blob.Close())
		}
	})
	require.NoError(t, err)
	require.EqualValues(t, length, read)
	require.Equal(t, e.Digest, storage.Digest(digest.Sum(nil)))
	require.Less(t, grew, int64(maxGrowth), "bytes that reading added to the heap")

	var tail [100]byte
	grew = heapGrowth(func() {
		var blob *engine.Blob
		if blob, err = f.Open(ctx, ref); err == nil {
			_, err = blob.ReadAt(tail[:], length-int64(len(tail)))
			err = errors.Join(err, blob.Close())
		}
	})
	require.NoError(t, err)
	require.Less(t, grew, int64(maxGrowth), "bytes that a read at the end, which checks the whole, added to the heap")

	require.NoError(t, f.Delete(ctx, ref))
	requireEmpty(t, f, config.BaseDir)
}
