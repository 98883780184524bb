package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// heard is what a listener was told, by the name of its function.
type heard struct {
	mu     sync.Mutex // guards events
	events map[string][]engine.Event
}

func (h *heard) hear(name string) func(engine.Event) {
	return func(e engine.Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events[name] = append(h.events[name], e)
	}
}

func (h *heard) listener() *engine.EventListener {
	h.events = map[string][]engine.Event{}
	return &engine.EventListener{
		Stored: h.hear("stored"), Shared: h.hear("shared"), Healed: h.hear("healed"), Retrieved: h.hear("retrieved"),
		Opened: h.hear("opened"), Deleted: h.hear("deleted"), Damaged: h.hear("damaged"), Committed: h.hear("committed"),
		Refused: h.hear("refused"), Failed: h.hear("failed"), Expired: h.hear("expired"), Compacted: h.hear("compacted"),
	}
}

// take is what was heard since the last take.
func (h *heard) take() map[string][]engine.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.events
	h.events = map[string][]engine.Event{}
	return taken
}

// quiet requires that nothing was heard, apart from commits, which also the
// store's own checkpoints make.
func (h *heard) quiet(t *testing.T, why string) {
	t.Helper()
	events := h.take()
	delete(events, "committed")
	require.Empty(t, events, why)
}

// only requires that one event was heard, apart from commits, and returns it.
func (h *heard) only(t *testing.T, name string) engine.Event {
	t.Helper()
	events := h.take()
	delete(events, "committed")
	require.Len(t, events, 1, "%v", events)
	require.Len(t, events[name], 1, "%v", events)
	return events[name][0]
}

func openHeard(t *testing.T) (*engine.FileStore, *heard, string) {
	h := new(heard)
	dir := t.TempDir()
	return mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, EventListener: h.listener()}), h, dir
}

func TestEventsOfALife(t *testing.T) {
	ctx := context.Background()
	f, h, dir := openHeard(t)
	h.take()
	data := bytesOf(5000, 1)
	requireAbout := func(e engine.Event, op engine.Operation, ref *storage.StorageReference) {
		t.Helper()
		require.Positive(t, e.Duration)
		e.Duration = 0
		require.Equal(t, engine.Event{
			Operation: op, Store: dir, ID: ref.ID, Path: ref.Metadata["path"], Bytes: int64(len(data)), Last: e.Last,
		}, e)
	}

	a := mustStore(t, f, data, storage.MediaMetadata{})
	requireAbout(h.only(t, "stored"), engine.OpStore, a)
	b := mustStore(t, f, data, storage.MediaMetadata{})
	requireAbout(h.only(t, "shared"), engine.OpStorePresent, b)
	mustRetrieve(t, f, a)
	requireAbout(h.only(t, "retrieved"), engine.OpRetrieve, a)
	blob := mustOpenBlob(t, f, b)
	requireAbout(h.only(t, "opened"), engine.OpOpen, b)
	_, err := io.ReadAll(blob)
	require.NoError(t, err)
	h.quiet(t, "reading is the caller's")

	require.NoError(t, f.Checkpoint(ctx)) // until then the bytes are in staging, too
	require.NoError(t, os.Remove(filepath.Join(dir, filepath.FromSlash(a.Metadata["path"]))))
	c := mustStore(t, f, data, storage.MediaMetadata{})
	requireAbout(h.only(t, "healed"), engine.OpStore, c)

	for i, ref := range []*storage.StorageReference{a, b, c} {
		require.NoError(t, f.Delete(ctx, ref))
		e := h.only(t, "deleted")
		requireAbout(e, engine.OpDelete, ref)
		require.Equal(t, i == 2, e.Last)
	}
	require.NoError(t, f.Delete(ctx, a))
	h.quiet(t, "it was gone already")
}

func TestEventsOfFailures(t *testing.T) {
	ctx := context.Background()
	f, h, dir := openHeard(t)
	ref := mustStore(t, f, []byte("kept"), storage.MediaMetadata{})
	require.NoError(t, f.Delete(ctx, ref))
	h.take()
	canceled, cancel := context.WithCancel(ctx)
	broken := errors.New("the stream broke")
	cases := []struct {
		op        engine.Operation
		class, id string
		call      func() error
	}{
		{engine.OpStore, "invalid_media", "", func() error { _, err := f.Store(ctx, &storage.MediaContent{}, storage.MediaMetadata{}); return err }},
		{engine.OpStore, "invalid_media", "", func() error {
			_, err := f.StoreReader(ctx, io.MultiReader(bytes.NewReader(small), failingReader{broken}), storage.MediaInfo{}, storage.MediaMetadata{})
			return err
		}},
		{engine.OpStore, "canceled", "", func() error {
			r := io.MultiReader(bytes.NewReader(small), cancelingReader{cancel}, bytes.NewReader(small))
			_, err := f.StoreReader(canceled, r, storage.MediaInfo{}, storage.MediaMetadata{})
			return err
		}},
		{engine.OpRetrieve, "not_found", ref.ID, func() error { _, err := f.Retrieve(ctx, ref); return err }},
		{engine.OpOpen, "not_found", ref.ID, func() error { _, err := f.Open(ctx, ref); return err }},
		{engine.OpOpen, "invalid_ref", "", func() error { _, err := f.Open(ctx, &storage.StorageReference{ID: "x\n"}); return err }},
		{engine.OpDelete, "invalid_ref", "", func() error { return f.Delete(ctx, nil) }},
	}
	for _, c := range cases {
		err := c.call()
		require.Error(t, err)
		e := h.only(t, "failed")
		require.ErrorIs(t, err, e.Err)
		require.Equal(t, c.class, e.Class, "%v", err)
		require.Equal(t, []any{c.op, c.id, dir}, []any{e.Operation, e.ID, e.Store})
		require.Positive(t, e.Duration)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

type cancelingReader struct{ cancel context.CancelFunc }

func (r cancelingReader) Read([]byte) (int, error) { r.cancel(); return 0, io.EOF }

// Each way to meet damage tells of it once, with what Verify would say.
func TestEventsOfDamage(t *testing.T) {
	ctx := context.Background()
	harms := []struct {
		kind storage.FindingKind
		harm func(t *testing.T, file string)
	}{
		{storage.FindingMissing, func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) }},
		{storage.FindingSize, func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 7)) }},
		{storage.FindingChecksum, func(t *testing.T, file string) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			data[3] ^= 1
			require.NoError(t, os.WriteFile(file, data, 0o600))
		}},
	}
	reads := map[engine.Operation]func(*engine.FileStore, *storage.StorageReference) error{
		engine.OpRetrieve: func(f *engine.FileStore, ref *storage.StorageReference) error {
			_, err := f.Retrieve(ctx, ref)
			return err
		},
		engine.OpOpen: func(f *engine.FileStore, ref *storage.StorageReference) error {
			b, err := f.Open(ctx, ref)
			if err != nil {
				return err
			}
			_, whole := io.Copy(io.Discard, b)
			_, again := b.ReadAt(make([]byte, 1), 0)
			return errors.Join(whole, again, b.Close())
		},
		engine.OpRead: func(f *engine.FileStore, ref *storage.StorageReference) error {
			b, err := f.Open(ctx, ref)
			if err != nil {
				return err
			}
			_, part := b.ReadAt(make([]byte, 1), 0)
			_, again := b.ReadAt(make([]byte, 1), 1)
			return errors.Join(part, again, b.Close())
		},
	}
	for _, harm := range harms {
		for op, read := range reads {
			t.Run(fmt.Sprint(harm.kind, " by ", op), func(t *testing.T) {
				h := new(heard)
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, EventListener: h.listener()}
				f, err := engine.Open(ctx, config)
				require.NoError(t, err)
				defer func() { require.NoError(t, f.Close()) }()
				ref := mustStore(t, f, small, storage.MediaMetadata{})
				require.NoError(t, f.Checkpoint(ctx)) // until then the bytes are in staging, too
				harm.harm(t, filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"])))
				h.take()

				err = read(f, ref)
				require.ErrorIs(t, err, storage.ErrCorrupted)
				told := h.take()["damaged"]
				require.Len(t, told, 1)
				requireDamage(t, told[0], harm.kind, ref)
				require.Equal(t, ref.ID, told[0].ID)

				found := damage(t, f)
				require.Len(t, found, 1)
				told = h.take()["damaged"]
				require.Len(t, told, 1)
				requireDamage(t, told[0], harm.kind, ref)
				require.Equal(t, found[0], told[0].Finding)
				require.Equal(t, engine.OpVerify, told[0].Operation)
			})
		}
	}
}

func requireDamage(t *testing.T, e engine.Event, kind storage.FindingKind, ref *storage.StorageReference) {
	t.Helper()
	require.Equal(t, kind, e.Finding.Kind)
	require.Equal(t, storage.SeverityDamage, e.Finding.Severity)
	require.Equal(t, ref.Metadata["path"], e.Path)
	require.Equal(t, ref.Metadata["path"], e.Finding.Path)
	require.NotEmpty(t, e.Finding.Blob)
	require.NotEmpty(t, e.Finding.Detail)
}

// Every change is in one group that the listener hears of, and no later than the
// calls that made the changes have returned.
func TestEventsOfCommits(t *testing.T) {
	ctx := context.Background()
	f, h, dir := openHeard(t)
	require.NoError(t, f.Checkpoint(ctx))
	h.take()
	const writers, each = 16, 8
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				ref, err := storeBytes(f, bytesOf(100+w*each+i, 3), w)
				if err == nil && i%2 == 0 {
					err = f.Delete(ctx, ref)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, f.Checkpoint(ctx))
	operations, staged := 0, 0
	for _, e := range h.take()["committed"] {
		c := e.Commit
		require.Equal(t, engine.Event{Operation: engine.OpCommit, Store: dir, Duration: c.Duration, Commit: c}, e)
		require.Positive(t, c.Operations)
		require.Positive(t, c.Bytes)
		require.GreaterOrEqual(t, c.Duration, c.Sync)
		require.Equal(t, c.Staged > 0, c.Sync > 0)
		operations += c.Operations
		staged += c.Staged
	}
	require.Equal(t, writers*each, staged)
	require.GreaterOrEqual(t, operations, writers*each*3/2)
}

// A listener is called with nothing held: it may use the store for whatever it
// was told of.
func TestListenerMayUseTheStore(t *testing.T) {
	ctx := context.Background()
	var f *engine.FileStore
	deep := func(engine.Event) {
		if f == nil {
			return // opening
		}
		if _, err := f.Stats(ctx); !errors.Is(err, storage.ErrClosed) { // what Close commits is told, too
			require.NoError(t, err)
		}
	}
	use := func(e engine.Event) {
		deep(e)
		if e.Bytes == 9 {
			return
		}
		ref, err := f.StoreReader(ctx, bytes.NewReader([]byte("a listener")[:9]), storage.MediaInfo{}, storage.MediaMetadata{})
		require.NoError(t, err)
		require.NoError(t, f.Delete(ctx, ref))
		require.NoError(t, f.Checkpoint(ctx))
	}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, EventListener: &engine.EventListener{
		Stored: use, Shared: use, Healed: use, Retrieved: use, Opened: use, Deleted: use, Failed: use, Damaged: deep, Committed: deep,
	}}
	f = mustOpen(t, config)
	ref := mustStore(t, f, small, storage.MediaMetadata{})
	again := mustStore(t, f, small, storage.MediaMetadata{})
	mustRetrieve(t, f, ref)
	mustOpenBlob(t, f, ref)
	require.NoError(t, f.Delete(ctx, ref))
	_, err := f.Retrieve(ctx, ref)
	require.ErrorIs(t, err, storage.ErrNotFound)
	file := filepath.Join(config.BaseDir, filepath.FromSlash(again.Metadata["path"]))
	require.NoError(t, os.Rename(file, file+".away"))
	_, err = f.Retrieve(ctx, again)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.NoError(t, os.Remove(file+".away"))
	mustStore(t, f, small, storage.MediaMetadata{})
}

// A compaction is told of, whoever has begun it, with the pause; a dry run is not.
func TestEventsOfCompactions(t *testing.T) {
	ctx := context.Background()
	h, dir := &heard{}, t.TempDir()
	f := mustOpen(t, engine.FileStoreConfig{
		BaseDir: dir, Sync: engine.SyncNone, EventListener: h.listener(), CompactAt: 64 << 10,
	})
	var refs []*storage.StorageReference
	for i := range 1000 {
		refs = append(refs, mustStore(t, f, bytesOf(100, byte(i)), storage.MediaMetadata{SessionID: strings.Repeat("s", 100)}))
	}
	h.take()
	_, err := f.Compact(ctx, engine.CompactOptions{DryRun: true})
	require.NoError(t, err)
	require.Empty(t, h.take()["compacted"])
	done, err := f.Compact(ctx, engine.CompactOptions{})
	require.NoError(t, err)
	require.Positive(t, done.Pause)
	require.Less(t, done.Pause, done.Duration)
	require.Equal(t, []engine.Event{{
		Operation: engine.OpCompact, Store: dir, Duration: done.Duration, Compaction: done,
	}}, h.take()["compacted"])

	for _, ref := range refs[50:] {
		require.NoError(t, f.Delete(ctx, ref))
	}
	require.NoError(t, f.Checkpoint(ctx))
	var byItself []engine.Event
	require.Eventually(t, func() bool {
		mustStore(t, f, bytesOf(10, 1), storage.MediaMetadata{}) // so that there is something to flush
		byItself = h.take()["compacted"]
		return len(byItself) > 0
	}, 30*time.Second, 50*time.Millisecond)
	c := byItself[0].Compaction
	require.Positive(t, c.Pause)
	require.Less(t, c.After, c.Before)
}

func TestTeeEvents(t *testing.T) {
	var heard []string
	hear := func(who string) func(engine.Event) { return func(engine.Event) { heard = append(heard, who) } }
	tee := engine.TeeEvents(&engine.EventListener{Stored: hear("a")}, nil,
		&engine.EventListener{Stored: hear("b"), Shared: hear("c")}, &engine.EventListener{Stored: hear("d")})
	tee.Stored(engine.Event{})
	tee.Shared(engine.Event{})
	require.Equal(t, []string{"a", "b", "d", "c"}, heard)
	require.Nil(t, tee.Deleted)
	require.Equal(t, &engine.EventListener{}, engine.TeeEvents())
}

// Each kind of call has its latency, in Stats.
func TestLatencies(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	begun := time.Now()
	ref := mustStore(t, f, small, storage.MediaMetadata{})
	for range 2 {
		mustStore(t, f, small, storage.MediaMetadata{})
	}
	for range 3 {
		mustRetrieve(t, f, ref)
	}
	for range 4 {
		mustOpenBlob(t, f, ref)
	}
	for range 5 {
		require.NoError(t, f.Delete(ctx, ref))
	}
	_, err := f.Retrieve(ctx, ref) // a failure has none
	require.Error(t, err)
	elapsed := time.Since(begun)

	stats, err := f.Stats(ctx)
	require.NoError(t, err)
	counts := map[engine.Operation]int64{}
	for op, l := range stats.Latencies.All() {
		counts[op] = l.Count
		require.Positive(t, l.P50, op)
		require.LessOrEqual(t, l.P50, l.P95, op)
		require.LessOrEqual(t, l.P95, l.P99, op)
		require.LessOrEqual(t, l.P99, l.Max, op)
		require.LessOrEqual(t, l.Max, l.Sum, op)
		require.LessOrEqual(t, l.Sum, elapsed, op)
		require.Equal(t, l.Count, l.Within[engine.LatencyBounds-1], op)
	}
	require.GreaterOrEqual(t, counts[engine.OpCommit], int64(4), "three stores and a delete, one after another")
	delete(counts, engine.OpCommit)
	require.Equal(t, map[engine.Operation]int64{
		engine.OpStore: 1, engine.OpStorePresent: 2, engine.OpRetrieve: 3, engine.OpOpen: 4, engine.OpDelete: 5,
	}, counts)
}
