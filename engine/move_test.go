package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// hooks are called at steps of a store, where they are set.
type hooks struct{ looked, added, appending, reading, pruned, settled atomic.Pointer[func()] }

func call(hook *atomic.Pointer[func()]) {
	if fn := hook.Load(); fn != nil {
		(*fn)()
	}
}

func (h *hooks) in(config engine.FileStoreConfig) engine.FileStoreConfig {
	return engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		return &hookedIndex{i, h}, &hookedBlobs{b, h}
	})
}

type hookedIndex struct {
	engine.Index
	hooks *hooks
}

func (x *hookedIndex) Ref(ctx context.Context, id storage.ID) (storage.RefRow, storage.BlobRow, error) {
	defer call(&x.hooks.looked)
	return x.Index.Ref(ctx, id)
}

func (x *hookedIndex) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	defer call(&x.hooks.added)
	return x.Index.Add(ctx, add)
}

type hookedBlobs struct {
	engine.Blobs
	hooks *hooks
}

func (b *hookedBlobs) AppendSidecar(ctx context.Context, blob *storage.BlobRow, lines ...storage.SidecarLine) error {
	call(&b.hooks.appending)
	return b.Blobs.AppendSidecar(ctx, blob, lines...)
}

func (b *hookedBlobs) ReadSidecar(ctx context.Context, path string) (storage.Sidecar, error) {
	defer call(&b.hooks.reading)
	return b.Blobs.ReadSidecar(ctx, path)
}

func (b *hookedBlobs) PruneNamed(ctx context.Context, kind storage.IDKind, id string) ([]string, error) {
	defer call(&b.hooks.pruned)
	return b.Blobs.PruneNamed(ctx, kind, id)
}

func (b *hookedBlobs) Settle(ctx context.Context) error {
	defer call(&b.hooks.settled)
	return b.Blobs.Settle(ctx)
}

// once has a hook call fn the next time, and then no more.
func once(hook *atomic.Pointer[func()], fn func()) {
	var first func()
	first = func() {
		if hook.CompareAndSwap(&first, nil) {
			fn()
		}
	}
	hook.Store(&first)
}

// stopAt is config whose store waits at a fault point, the first time, until go on is
// closed, and closes reached before.
func stopAt(config engine.FileStoreConfig, point engine.FaultPoint) (_ engine.FileStoreConfig, reached, goOn chan struct{}) {
	reached, goOn = make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	return engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
		if p == point && first.CompareAndSwap(false, true) {
			close(reached)
			<-goOn
		}
		return nil
	}), reached, goOn
}

// unorganized stores blobs in one directory and returns the config with which
// Reorganize moves them.
func unorganized(t testing.TB, config engine.FileStoreConfig, blobs int) engine.FileStoreConfig {
	t.Helper()
	config.Organization = storage.OrganizationFlat
	setup(t, config, func(f *engine.FileStore) {
		for i := range blobs {
			mustStore(t, f, bytesOf(100+i, byte(i)), storage.MediaMetadata{SessionID: "session", ConversationID: fmt.Sprint(i)})
		}
	})
	config.Organization = storage.OrganizationBySession
	return config
}

// A path that a blob is on its way to is no file of a deletion.
func TestVerifyWhileBlobsMove(t *testing.T) {
	ctx := context.Background()
	config := unorganized(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, 3)
	config, reached, goOn := stopAt(config, engine.FaultLinked)
	f := mustOpen(t, config)
	moved := make(chan error)
	go func() {
		_, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
		moved <- err
	}()
	<-reached
	time.AfterFunc(200*time.Millisecond, func() { close(goOn) })
	for finding, err := range f.Verify(ctx, engine.VerifyOptions{}) {
		require.NoError(t, err)
		t.Errorf("found %+v", finding)
	}
	require.NoError(t, <-moved)
}

// What one checkpoint has taken and not written, another waits for: an erasure that
// does not see the lines would leave them.
func TestEraseWaitsForLateLines(t *testing.T) {
	ctx := context.Background()
	var h hooks
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, h.in(config))
	mustStore(t, f, other, someIDs)
	require.NoError(t, f.Checkpoint(ctx))
	mustStore(t, f, other, storage.MediaMetadata{SessionID: "doomed"})
	checkpointed := make(chan error, 1)
	_, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(e engine.Erasure) {
		if e.Far.Step != engine.EraseReferences || e.References != 1 {
			return
		}
		late := make(chan struct{})
		once(&h.appending, func() { close(late); time.Sleep(300 * time.Millisecond) })
		go func() { checkpointed <- f.Checkpoint(ctx) }()
		<-late
	}})
	require.NoError(t, err)
	require.NoError(t, <-checkpointed)
	requireNoTrace(t, config.BaseDir, "doomed")
}

// A line that comes to be written after an erasure has ended its reference tells
// nothing of it.
func TestEraseOutrunsALine(t *testing.T) {
	ctx := context.Background()
	var h hooks
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, h.in(config))
	mustStore(t, f, other, someIDs)
	once(&h.added, func() {
		done, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 1, done.References)
	})
	mustStore(t, f, other, storage.MediaMetadata{SessionID: "doomed"})
	require.NoError(t, f.Checkpoint(ctx))
	requireNoTrace(t, config.BaseDir, "doomed")
	require.Empty(t, damage(t, f))
}

// A crash between the ledger and the end of the record of what was pending leaves
// the query with its IDs to the next opening.
func TestEraseForgetsItsQueryAfterACrash(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	pending := filepath.Join(config.BaseDir, ".mediabolt", "erasing")
	var before []byte
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, small, storage.MediaMetadata{SessionID: "doomed"})
		_, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(engine.Erasure) {
			var err error
			before, err = os.ReadFile(pending)
			require.NoError(t, err)
		}})
		require.NoError(t, err)
	})
	require.Contains(t, string(before), "doomed")
	require.NoError(t, os.WriteFile(pending, before, 0o600))
	f := mustOpen(t, config)
	requireNoTrace(t, config.BaseDir, "doomed")
	require.Len(t, allErasures(t, f), 1)
}

// A blob that is about to get the directory of a session that is erased meanwhile does
// not stay there.
func TestEraseWhileBlobsMove(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Organization: storage.OrganizationFlat}
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, shared, storage.MediaMetadata{SessionID: "doomed"})
		mustStore(t, f, shared, someIDs)
	})
	config.Organization = storage.OrganizationBySession
	var h hooks
	f := mustOpen(t, h.in(config))
	erased, traced := make(chan error), make(chan struct{})
	once(&h.reading, func() { close(traced); time.Sleep(200 * time.Millisecond) })
	once(&h.looked, func() {
		go func() {
			_, err := f.Erase(ctx, engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
			erased <- err
		}()
		select {
		case <-traced:
		case <-time.After(300 * time.Millisecond):
		}
	})
	_, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
	require.NoError(t, err)
	require.NoError(t, <-erased)
	requireNoTrace(t, config.BaseDir, "doomed")
}

// An erasure that goes on counts what it had done before it was stopped.
func TestErasureCountsAcrossItsParts(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	for i := range 600 {
		mustStore(t, f, bytesOf(100+i, byte(i)), someIDs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped, err := f.Erase(ctx, engine.Query{SessionID: someIDs.SessionID}, engine.EraseOptions{Progress: func(e engine.Erasure) {
		if e.References > 0 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.NotZero(t, stopped.References)
	done, err := f.ResumeErasures(context.Background())
	require.NoError(t, err)
	require.Len(t, done, 1)
	require.EqualValues(t, 600, done[0].References)
	require.EqualValues(t, 600, done[0].Blobs)
}

// The removal of a directory alone is durable before the ledger tells of the erasure.
func TestEraseMakesPrunedDirectoriesDurable(t *testing.T) {
	var h hooks
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, h.in(config))
	require.NoError(t, os.Mkdir(filepath.Join(config.BaseDir, "doomed"), 0o700))
	durable := false
	pruned, settled := func() { durable = false }, func() { durable = true }
	h.pruned.Store(&pruned)
	h.settled.Store(&settled)
	_, err := f.Erase(context.Background(), engine.Query{SessionID: "doomed"}, engine.EraseOptions{})
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(config.BaseDir, "doomed"))
	require.True(t, durable)
}

// The URL of a blob that gets another path between two looks at it is the new one.
func TestURLWhileBlobsMove(t *testing.T) {
	ctx := context.Background()
	var h hooks
	config := unorganized(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}, 1)
	f := mustOpen(t, h.in(config))
	e := allEntries(t, f, engine.Query{})[0]
	once(&h.looked, func() {
		_, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
		require.NoError(t, err)
	})
	url, err := f.URL(ctx, &e.Reference)
	require.NoError(t, err)
	require.Contains(t, url, "/session/0/")
}

// A file that stands where a blob is to go is not the store's to remove.
func TestReorganizeSparesWhatIsInItsWay(t *testing.T) {
	for _, dedup := range []bool{true, false} {
		ctx := context.Background()
		config := unorganized(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: dedup}, 1)
		f := mustOpen(t, config)
		before := allEntries(t, f, engine.Query{})[0]
		inWay := filepath.Join(config.BaseDir, "session", "0", before.Path)
		require.NoError(t, os.MkdirAll(filepath.Dir(inWay), 0o700))
		require.NoError(t, os.WriteFile(inWay, []byte("a copy of somebody's"), 0o600))
		done, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
		require.NoError(t, err)
		data, err := os.ReadFile(inWay)
		require.NoError(t, err)
		require.Equal(t, "a copy of somebody's", string(data))
		if dedup {
			require.EqualValues(t, 1, done.Moved)
		} else {
			require.EqualValues(t, 1, done.Failed)
			require.Contains(t, done.Failures[0].Reason, before.Path)
		}
		mustRetrieve(t, f, &before.Reference)
		require.NoError(t, os.Remove(inWay))
		_, err = f.Reorganize(ctx, engine.ReorganizeOptions{})
		require.NoError(t, err)
		require.Empty(t, damage(t, f))
	}
}

// A path that is free, but of which a removal is still owed, is not used again: what
// is there when that is paid would go.
func TestReorganizeLeavesPathsThatAreOwed(t *testing.T) {
	for _, dedup := range []bool{true, false} {
		ctx := context.Background()
		config := unorganized(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: dedup}, 1)
		sidecar := filepath.Join(config.BaseDir, blobFiles(t, config.BaseDir)[0]+".meta")
		require.NoError(t, os.Remove(sidecar))
		require.NoError(t, os.MkdirAll(filepath.Join(sidecar, "in the way"), 0o700))
		setup(t, config, func(f *engine.FileStore) {
			done, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
			require.NoError(t, err)
			require.EqualValues(t, 1, done.Moved)
		})
		require.NoFileExists(t, strings.TrimSuffix(sidecar, ".meta"))
		require.DirExists(t, sidecar, "so its removal is owed")

		config.Organization = storage.OrganizationFlat
		f := mustOpen(t, config)
		e := allEntries(t, f, engine.Query{})[0]
		done, err := f.Reorganize(ctx, engine.ReorganizeOptions{})
		require.NoError(t, err)
		if dedup {
			require.EqualValues(t, 1, done.Moved)
			require.NotEqual(t, filepath.Base(e.Path), allEntries(t, f, engine.Query{})[0].Path)
		} else {
			require.EqualValues(t, 1, done.Failed)
		}
		require.NoError(t, os.RemoveAll(sidecar))
		require.NoError(t, f.Checkpoint(ctx))
		mustRetrieve(t, f, &e.Reference)
		require.Empty(t, damage(t, f))
	}
}

// A closing store does not wait for the end of what goes on in the background because
// somebody else waits for that.
func TestCloseEndsABackgroundErasure(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) {
		mustStore(t, f, small, storage.MediaMetadata{SessionID: "doomed"})
		stop, cancel := context.WithCancel(ctx)
		_, err := f.Erase(stop, engine.Query{SessionID: "doomed"}, engine.EraseOptions{Progress: func(engine.Erasure) { cancel() }})
		require.ErrorIs(t, err, context.Canceled)
	})
	var h hooks
	begun := make(chan struct{})
	var first atomic.Bool
	pruned := func() {
		if first.CompareAndSwap(false, true) {
			close(begun)
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.pruned.Store(&pruned)
	f, err := engine.Open(ctx, h.in(config))
	require.NoError(t, err)
	<-begun
	cancelled, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	_, err = f.Erase(cancelled, engine.Query{SessionID: "nobody"}, engine.EraseOptions{})
	require.ErrorIs(t, err, context.DeadlineExceeded, "waits for its turn no longer than it may")
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	_, err = f.ResumeErasures(ctx)
	require.NoError(t, err)
	all := allErasures(t, f)
	require.Len(t, all, 1)
	require.False(t, all[0].FinishedAt.IsZero())
}

// What a journal would not keep as it is cannot be decided.
func TestEraseRefusesWhatIsNoText(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	for _, q := range []engine.Query{{SessionID: "a\xff"}, {Labels: map[string]string{"k": "\xff"}}, {MimeType: "image/\xc3"}} {
		_, err := f.Erase(context.Background(), q, engine.EraseOptions{})
		require.ErrorIs(t, err, storage.ErrInvalidQuery)
	}
}

// Of two IDs of a query one may still be that of a reference that it spared: the other
// is not to be found for that.
func TestEraseByTwoIDsLeavesNoTraceOfEither(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	spared := storage.MediaMetadata{SessionID: "both", ConversationID: "spared"}
	for _, data := range [][]byte{shared, other} {
		mustStore(t, f, data, storage.MediaMetadata{SessionID: "both", ConversationID: "doomed"})
		mustStore(t, f, data, spared)
	}
	mustStore(t, f, small, spared)
	mustStore(t, f, small, storage.MediaMetadata{SessionID: "both", ConversationID: "doomed"})
	require.NoError(t, f.Checkpoint(ctx))
	done, err := f.Erase(ctx, engine.Query{SessionID: "both", ConversationID: "doomed"}, engine.EraseOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 3, done.References)
	require.EqualValues(t, 3, done.Moved)
	requireNoTrace(t, config.BaseDir, "doomed")
	for _, e := range allEntries(t, f, engine.Query{}) {
		require.Equal(t, "spared", e.Metadata.ConversationID)
		mustRetrieve(t, f, &e.Reference)
	}
}
