package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// crowd is how many goroutines do the same thing at once.
const crowd = 64

// atOnce runs fn in n goroutines that start together, and requires that none of
// them returns an error.
func atOnce(t testing.TB, n int, fn func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// wantBytes is an error unless a reference has these bytes.
func wantBytes(f *engine.FileStore, ref *storage.StorageReference, want []byte) error {
	blob, err := f.Open(context.Background(), ref)
	if err != nil {
		return err
	}
	// One byte more than there should be, so that Read meets the end.
	got := make([]byte, len(want)+1)
	n, err := io.ReadFull(blob, got)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err := errors.Join(err, blob.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("reference %s has %d other bytes, want %d", ref.ID, n, len(want))
	}
	return nil
}

// storeBytes stores bytes in a session of their own.
func storeBytes(f *engine.FileStore, data []byte, session int) (*storage.StorageReference, error) {
	return f.Store(context.Background(), content(data), storage.MediaMetadata{SessionID: fmt.Sprint("s", session)})
}

func TestSameContentStoredByManyAtOnceThenDeletedByAll(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		sync   engine.SyncMode
		rounds int
	}{{engine.SyncNone, 12}, {engine.SyncFull, 4}} {
		t.Run(string(tt.sync), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: tt.sync}
			f := mustOpen(t, config)
			for round := range tt.rounds {
				data := bytesOf(10_000+round, 1)
				refs := make([]*storage.StorageReference, crowd)
				atOnce(t, crowd, func(i int) (err error) {
					refs[i], err = storeBytes(f, data, i)
					return err
				})
				require.Len(t, blobFiles(t, config.BaseDir), 1, "one file")
				for _, ref := range refs {
					require.Equal(t, refs[0].Metadata["path"], ref.Metadata["path"])
					require.EqualValues(t, crowd, mustStat(t, f, ref).Refs)
				}
				require.EqualValues(t, len(data), mustStats(t, f).PhysicalBytes)

				// Half go while the other half are read.
				atOnce(t, crowd, func(i int) error {
					if i%2 == 0 {
						return f.Delete(ctx, refs[i])
					}
					return wantBytes(f, refs[i], data)
				})
				require.EqualValues(t, crowd/2, mustStat(t, f, refs[1]).Refs)
				if round == tt.rounds-1 {
					require.Empty(t, damage(t, f))
				}
				// Everybody deletes everything, so most deletions are repeated.
				atOnce(t, crowd, func(i int) error {
					return errors.Join(f.Delete(ctx, refs[i]), f.Delete(ctx, refs[(i+1)%crowd]))
				})
				requireEmpty(t, f, config.BaseDir)
			}
		})
	}
}

// The last reference goes in one goroutine while the next one comes in another,
// again and again: the moment in which a file could be lost or left over.
func TestSameContentComesAndGoesAtOnce(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct{ size, goroutines, rounds int }{
		{500, crowd, 25},
		{1<<20 + 1, crowd / 4, 4}, // spooled
	} {
		t.Run(fmt.Sprintf("size=%d", tt.size), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
			f := mustOpen(t, config)
			data := bytesOf(tt.size, 1)
			atOnce(t, tt.goroutines, func(i int) error {
				for range tt.rounds {
					ref, err := f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{SessionID: fmt.Sprint("s", i)})
					if err != nil {
						return fmt.Errorf("store: %w", err)
					}
					if err := wantBytes(f, ref, data); err != nil {
						return fmt.Errorf("read what was just stored: %w", err)
					}
					if err := f.Delete(ctx, ref); err != nil {
						return fmt.Errorf("delete: %w", err)
					}
					if _, err := f.Retrieve(ctx, ref); !errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupted) {
						return fmt.Errorf("retrieve what was deleted: %w", err)
					}
				}
				return nil
			})
			requireEmpty(t, f, config.BaseDir)
			require.Zero(t, mustStats(t, f).Healed, "no file was ever missing")
		})
	}
}

func TestVerifyBesideTraffic(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var ended atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				ref, err := storeBytes(f, bytesOf(2000, byte(n%5)), i)
				if err == nil {
					err = f.Delete(ctx, ref)
				}
				if err != nil {
					t.Errorf("traffic: %v", err)
					return
				}
				ended.Add(1)
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for round := range int64(10) {
		require.Eventually(t, func() bool { return ended.Load() > round*50 }, 30*time.Second, time.Millisecond)
		require.Empty(t, damage(t, f))
	}
}

func TestStoresIntoADirectoryThatOthersEmpty(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Organization: storage.OrganizationByRun, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	// All share the directories of the run and the session, two by two that
	// of a conversation.
	atOnce(t, 16, func(i int) error {
		data := bytesOf(100, byte(i))
		for range 60 {
			ref, err := f.Store(ctx, content(data), storage.MediaMetadata{
				RunID: "r", SessionID: "s", ConversationID: fmt.Sprint("c", i/2),
			})
			if err != nil {
				return fmt.Errorf("store: %w", err)
			}
			if err := wantBytes(f, ref, data); err != nil {
				return fmt.Errorf("read: %w", err)
			}
			if err := f.Delete(ctx, ref); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
		}
		return nil
	})
	requireEmpty(t, f, config.BaseDir)
}

func TestNewContentIsWrittenOnceHoweverManyBringIt(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int{1000, 1<<20 + 1} {
		t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
			var published atomic.Int64
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f := mustOpen(t, engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
				if p == engine.FaultPublished {
					published.Add(1)
				}
				return nil
			}))
			data := bytesOf(size, 1)
			refs := make([]*storage.StorageReference, crowd)
			atOnce(t, crowd, func(i int) (err error) {
				refs[i], err = f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{SessionID: fmt.Sprint("s", i)})
				return err
			})
			require.EqualValues(t, 1, published.Load(), "blobs that were staged and published")
			require.Len(t, blobFiles(t, config.BaseDir), 1)
			require.Empty(t, stagedFiles(t, f, config.BaseDir))
			ids := map[string]bool{}
			for _, ref := range refs {
				ids[ref.ID] = true
			}
			require.Len(t, ids, crowd, "everybody has a reference of their own")
			require.EqualValues(t, crowd, mustStat(t, f, refs[0]).Refs)
			require.Equal(t, data, mustRetrieve(t, f, refs[crowd-1]))
		})
	}
}

// startStalledStore starts a StoreReader whose stream blocks, and returns once
// it does.
func startStalledStore(f *engine.FileStore, data []byte) (stream *stalling, result chan error) {
	stream = newStalling(data, func() (int, error) { return 0, io.EOF })
	result = make(chan error, 1)
	go func() {
		_, err := f.StoreReader(context.Background(), stream, storage.MediaInfo{}, storage.MediaMetadata{SessionID: "stalled"})
		result <- err
	}()
	<-stream.stalled
	return stream, result
}

// grace is how long something that must not happen is given to happen.
const grace = 100 * time.Millisecond

func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	data := bytesOf(3<<20, 1)
	stream, stored := startStalledStore(f, data)
	const closers = 4
	closed := make(chan error, closers)
	for range closers {
		go func() { closed <- f.Close() }()
	}
	require.Eventually(t, func() bool {
		_, err := f.Stats(ctx)
		return errors.Is(err, storage.ErrClosed)
	}, 10*time.Second, time.Millisecond, "later calls are refused at once")
	select {
	case err := <-closed:
		close(stream.release)
		require.NoError(t, <-stored)
		t.Fatalf("a Close returned (%v) while a Store was under way", err)
	case <-time.After(grace):
	}
	close(stream.release)
	require.NoError(t, <-stored, "what was under way ends well")
	for range closers {
		require.NoError(t, <-closed)
	}
	require.NoError(t, f.Close())

	f = mustOpen(t, config)
	var refs []*storage.StorageReference
	for e, err := range f.List(ctx, engine.Query{SessionID: "stalled"}) {
		require.NoError(t, err)
		refs = append(refs, &e.Reference)
	}
	require.Len(t, refs, 1)
	require.NoError(t, wantBytes(f, refs[0], data))
}

func TestCloseAmidTraffic(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	var mu sync.Mutex
	kept := map[string][]byte{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				data := bytesOf(100, byte(n%7))
				ref, err := storeBytes(f, data, i)
				if errors.Is(err, storage.ErrClosed) {
					return
				} else if err != nil {
					t.Errorf("store: %v", err)
					return
				}
				mu.Lock()
				kept[ref.ID] = data
				mu.Unlock()
			}
		})
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(kept) > 100
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, f.Close())
	wg.Wait()

	f = mustOpen(t, config)
	require.EqualValues(t, len(kept), mustStats(t, f).References, "all that was acknowledged, and nothing else")
	for id, data := range kept {
		require.NoError(t, wantBytes(f, &storage.StorageReference{ID: id}, data))
	}
	require.NoError(t, f.Close())
	_, err := f.Retrieve(ctx, &storage.StorageReference{ID: "x"})
	require.ErrorIs(t, err, storage.ErrClosed)
}

func TestFirstUseByManyAtOnceOpensOnce(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "new", "store"), LockTimeout: -1}
	f := engine.NewFileStore(config)
	refs := make([]*storage.StorageReference, crowd)
	atOnce(t, crowd, func(i int) (err error) {
		refs[i], err = storeBytes(f, []byte{byte(i)}, i)
		return err
	})
	for i, ref := range refs {
		require.Equal(t, []byte{byte(i)}, mustRetrieve(t, f, ref))
	}
	require.Empty(t, damage(t, f))
	require.NoError(t, f.Close())
}

// childDir names, in the environment of a child process, the store that the
// child is to open.
const childDir = "MEDIABOLT_TEST_CHILD_DIR"

func TestSecondOpenIsLocked(t *testing.T) {
	const timeout = 200 * time.Millisecond
	ctx := context.Background()
	if dir := os.Getenv(childDir); dir != "" {
		_, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, LockTimeout: timeout})
		require.ErrorIs(t, err, storage.ErrLocked)
		fmt.Println("child:", err)
		return
	}
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), LockTimeout: timeout}
	f := mustOpen(t, config)
	ref := mustStore(t, f, []byte("mine"), storage.MediaMetadata{})

	t.Run("in this process", func(t *testing.T) {
		begin := time.Now()
		_, err := engine.Open(ctx, config)
		require.ErrorIs(t, err, storage.ErrLocked)
		require.ErrorContains(t, err, config.BaseDir)
		require.GreaterOrEqual(t, time.Since(begin), timeout)
	})
	t.Run("with one attempt", func(t *testing.T) {
		once := config
		once.LockTimeout = -1
		_, err := engine.Open(ctx, once)
		require.ErrorIs(t, err, storage.ErrLocked)
	})
	t.Run("in another process", func(t *testing.T) {
		child := exec.Command(os.Args[0], "-test.run=^TestSecondOpenIsLocked$")
		child.Env = append(os.Environ(), childDir+"="+config.BaseDir)
		out, err := child.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "child: open store "+config.BaseDir)
	})
	t.Run("reported by every call of a lazy store", func(t *testing.T) {
		once := config
		once.LockTimeout = -1
		lazy := engine.NewFileStore(once)
		for name, call := range everyCall(lazy) {
			require.ErrorIs(t, call(ctx), storage.ErrLocked, name)
		}
		require.NoError(t, lazy.Close())
	})
	require.Equal(t, []byte("mine"), mustRetrieve(t, f, ref), "the one that has it is not disturbed")
}

func TestOpenWaitsForTheLock(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), LockTimeout: time.Minute}
	f := mustOpen(t, config)
	opened := make(chan *engine.FileStore, 1)
	go func() {
		second, err := engine.Open(ctx, config)
		if err != nil {
			t.Errorf("open: %v", err)
		}
		opened <- second
	}()
	select {
	case <-opened:
		t.Fatal("opened while somebody else had it")
	case <-time.After(grace):
	}
	require.NoError(t, f.Close())
	second := <-opened
	require.NotNil(t, second)
	require.NoError(t, second.Close())
}

// While one call waits for the lock of a lazy store, the contexts of the others
// are heeded all the same.
func TestWaitingForTheLockHeedsEveryCallersContext(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), LockTimeout: time.Minute}
	mustOpen(t, config)
	lazy := engine.NewFileStore(config)
	patient, stop := context.WithCancel(context.Background())
	waiting := make(chan error, 1)
	go func() {
		_, err := lazy.Stats(patient)
		waiting <- err
	}()
	time.AfterFunc(5*time.Second, stop)

	time.Sleep(grace) // gives the first call the time to wait
	hasty, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	begin := time.Now()
	_, err := lazy.Stats(hasty)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 4*time.Second, "a context of %s was heeded late", grace)
	stop()
	require.ErrorIs(t, <-waiting, context.Canceled)
	require.NoError(t, lazy.Close())
}

func TestErrorsNameTheStore(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	for name, call := range everyCall(f) {
		if err := call(ctx); err != nil {
			requireSentinel(t, err, config.BaseDir)
			require.True(t, strings.Contains(err.Error(), "000000-"), "%s names the reference: %v", name, err)
		}
	}
}

// A reader never takes the staged bytes of the next incarnation of a blob for
// damage of the one that was deleted.
func TestReadersBesideDeletionAndANewStore(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	data := bytes.Repeat([]byte("x"), 1<<20-1)
	var current atomic.Pointer[storage.StorageReference]
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ref := current.Load()
				if ref == nil {
					continue
				}
				b, err := f.Open(ctx, ref)
				if err != nil {
					require.NotErrorIs(t, err, storage.ErrCorrupted)
					require.ErrorIs(t, err, storage.ErrNotFound)
					continue
				}
				require.NoError(t, b.Close())
			}
		})
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && !t.Failed(); {
		ref, err := f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
		require.NoError(t, err)
		current.Store(ref)
		require.NoError(t, f.Delete(ctx, ref))
	}
	close(stop)
	readers.Wait()
}

// hookAtEnd calls hook once, when its reader is at its end.
type hookAtEnd struct {
	io.Reader
	hook func()
}

func (h *hookAtEnd) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if err == io.EOF && h.hook != nil {
		h.hook()
		h.hook = nil
	}
	return n, err
}

// A duplicate stream has its reference even if its copy in staging cannot be
// removed.
func TestDuplicateStreamWhoseCopyCannotBeRemoved(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	data := bytes.Repeat([]byte("y"), 2<<20)
	first, err := f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
	require.NoError(t, err)
	second, err := f.StoreReader(ctx, &hookAtEnd{bytes.NewReader(data), func() {
		spools, err := filepath.Glob(filepath.Join(dir, ".mediabolt", "staging", "*", "*.part"))
		require.NoError(t, err)
		require.Len(t, spools, 1)
		require.NoError(t, os.Remove(spools[0]))
	}}, storage.MediaInfo{}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Equal(t, first.Metadata["path"], second.Metadata["path"])
}
