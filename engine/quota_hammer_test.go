package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// hammered is a store at its limits, and what 64 goroutines have in it.
type hammered struct {
	f     *engine.FileStore
	quota engine.Quota
	mu    sync.Mutex // guards refs
	refs  []*storage.StorageReference
	full  atomic.Int64 // stores that were refused
}

func (h *hammered) step(r *rand.Rand) error {
	ctx := context.Background()
	if r.IntN(3) == 0 {
		h.mu.Lock()
		if len(h.refs) == 0 {
			h.mu.Unlock()
			return nil
		}
		i := r.IntN(len(h.refs))
		ref := h.refs[i]
		h.refs = append(h.refs[:i], h.refs[i+1:]...)
		h.mu.Unlock()
		return h.f.Delete(ctx, ref)
	}
	m := storage.MediaMetadata{UserID: fmt.Sprint("u", r.IntN(3)), SessionID: fmt.Sprint("s", r.IntN(5))}
	data := bytesOf(hammerSizes[r.IntN(len(hammerSizes))], byte(r.IntN(40)))
	var ref *storage.StorageReference
	var err error
	if r.IntN(2) == 0 {
		ref, err = h.f.Store(ctx, content(data), m)
	} else {
		ref, err = h.f.StoreReader(ctx, streamOf(data), storage.MediaInfo{}, m)
	}
	if limit := new(engine.LimitError); errors.As(err, &limit) {
		h.full.Add(1)
		if limit.Used > limit.Bytes || limit.Used+limit.Asked <= limit.Bytes {
			return fmt.Errorf("no reason to refuse: %w", err)
		}
		return nil
	} else if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refs = append(h.refs, ref)
	return nil
}

// hammerSizes have the smallest first.
var hammerSizes = []int{97, 1500, 40_000, 1<<20 + 1000}

// over is an error if the store is over its quota.
func (h *hammered) over() error {
	stats, err := h.f.Stats(context.Background())
	if err == nil && stats.PhysicalBytes > h.quota.TotalBytes && h.quota.TotalBytes > 0 {
		return fmt.Errorf("%d bytes are over the quota of %d", stats.PhysicalBytes, h.quota.TotalBytes)
	}
	for by, limit := range map[engine.UsageKind]int64{engine.UsageByUser: h.quota.UserBytes, engine.UsageBySession: h.quota.SessionBytes} {
		for i := 0; i < 5 && limit > 0 && err == nil; i++ {
			var u engine.Usage
			group := fmt.Sprint(string(by[:1]), i)
			if u, err = h.f.UsageOf(context.Background(), by, group); err == nil && u.LogicalBytes > limit {
				return fmt.Errorf("%s has %d bytes, over the quota of %d", group, u.LogicalBytes, limit)
			}
		}
	}
	return err
}

// 64 goroutines that store and delete never get a store over its quotas, and once
// they only store it is full to within the smallest blob.
func TestQuotasHammered(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, c := range []struct {
		name  string
		dedup bool
		quota engine.Quota
	}{
		{"total", true, engine.Quota{TotalBytes: 1_500_000}},
		{"total", false, engine.Quota{TotalBytes: 1_500_000}},
		{"user", true, engine.Quota{UserBytes: 1_000_000}},
		{"session", false, engine.Quota{SessionBytes: 800_000}},
		{"all", true, engine.Quota{TotalBytes: 1_800_000, UserBytes: 900_000, SessionBytes: 700_000}},
	} {
		t.Run(fmt.Sprintf("%s/dedup=%v", c.name, c.dedup), func(t *testing.T) {
			h := &hammered{quota: c.quota, f: mustOpen(t, engine.FileStoreConfig{
				BaseDir: t.TempDir(), EnableDeduplication: c.dedup, Sync: engine.SyncNone, Quota: c.quota,
			})}
			stop := h.watch(t)
			atOnce(t, 64, func(i int) error {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				for range 8 {
					if err := h.step(r); err != nil {
						return err
					}
				}
				return nil
			})
			stop()
			require.NoError(t, h.over())
			require.Positive(t, h.full.Load(), "nothing was refused")
			h.fill(t)
		})
	}
}

// watch looks again and again whether the store is over its quota, until stop.
func (h *hammered) watch(t *testing.T) (stop func()) {
	quit := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Millisecond):
			}
			if err := h.over(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		close(quit)
		watching.Wait()
	}
}

// fill stores as one more until nothing fits, by many at once, and requires that
// this is so to the byte.
func (h *hammered) fill(t *testing.T) {
	t.Helper()
	m := storage.MediaMetadata{UserID: "u0", SessionID: "s0"}
	var made atomic.Int64
	atOnce(t, 64, func(int) error {
		for size := 100_000; size > 0; {
			data := bytes.Repeat(fmt.Appendf(nil, "%d ", made.Add(1)), size)[:size]
			_, err := h.f.Store(context.Background(), content(data), m)
			if errors.Is(err, storage.ErrDiskSpace) {
				size /= 2
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, h.over())
	free := int64(1 << 40)
	if h.quota.TotalBytes > 0 {
		free = min(free, h.quota.TotalBytes-mustStats(t, h.f).PhysicalBytes)
	}
	for by, limit := range map[engine.UsageKind]int64{engine.UsageByUser: h.quota.UserBytes, engine.UsageBySession: h.quota.SessionBytes} {
		if limit > 0 {
			u, err := h.f.UsageOf(context.Background(), by, map[engine.UsageKind]string{engine.UsageByUser: "u0", engine.UsageBySession: "s0"}[by])
			require.NoError(t, err)
			free = min(free, limit-u.LogicalBytes)
		}
	}
	require.Zero(t, free)
}
