package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Between which blobs of a rebuild its memory is compared, and by how many bytes the
// later may be ahead: a key for each blob in between would take more.
const (
	rebuildEarly  = 2_000
	rebuildLate   = 20_000
	rebuildGrowth = 1 << 20
)

// flushed is longer than rows stay in the log before they go to bbolt, in bytes of a
// heap the same at every size of the store, but not at every moment.
const flushed = 3 * time.Second

// fillMany stores n blobs of their own, 20 to a conversation.
func fillMany(t *testing.T, f *engine.FileStore, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				m := storage.MediaMetadata{SessionID: fmt.Sprintf("s%d", i/200), ConversationID: fmt.Sprintf("c%d", i/20), UserID: fmt.Sprintf("u%d", i%100)}
				data := binary.BigEndian.AppendUint64(nil, uint64(i))
				if _, err := f.StoreReader(context.Background(), bytes.NewReader(data), storage.MediaInfo{}, m); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
}

// live is how many bytes of the heap are in use.
func live() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A rebuild takes no memory for the blobs that it has behind it.
func TestRebuildInConstantMemory(t *testing.T) {
	if os.Getenv("MEDIABOLT_PROOF") == "" {
		t.Skip("a minute with the race detector: make crash-short and make crash have it")
	}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	fillMany(t, f, rebuildLate)
	require.NoError(t, f.Close())

	var restored, early, late int64
	var mu sync.RWMutex // all restore together, or one measures
	watched := engine.WithFaults(config, func(_ context.Context, at engine.FaultPoint) error {
		if at != engine.FaultRestored {
			return nil
		}
		n := atomic.AddInt64(&restored, 1)
		if n != rebuildEarly && n != rebuildLate {
			mu.RLock()
			defer mu.RUnlock()
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		time.Sleep(flushed)
		if n == rebuildEarly {
			early = live()
		} else {
			late = live()
		}
		return nil
	})
	result, err := engine.Rebuild(context.Background(), watched, engine.RebuildOptions{})
	require.NoError(t, err)
	require.EqualValues(t, rebuildLate, result.References)
	require.Positive(t, early)
	t.Logf("live heap after %d blobs %d KiB, after %d %d KiB", rebuildEarly, early>>10, rebuildLate, late>>10)
	require.Less(t, late-early, int64(rebuildGrowth), "bytes that a rebuild keeps of what it has restored")
}
