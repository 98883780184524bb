package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// errCrash is what a fault point answers where a test stops a store.
var errCrash = errors.New("crash forced by the test")

// Contents of the crash tests. large goes through a spool file.
var (
	small   = bytes.Repeat([]byte("small blob "), 400)
	other   = bytes.Repeat([]byte("another blob "), 300)
	shared  = bytes.Repeat([]byte("a blob of several references "), 200)
	large   = bytes.Repeat([]byte("0123456789abcdef"), (3<<20)/16)
	someIDs = storage.MediaMetadata{SessionID: "session", ConversationID: "conversation"}
)

// crash stops a store at one point. What was on disk at that moment is kept in
// copyDir, as a killed process would leave it; the store itself then sees an
// error there.
type crash struct {
	point   engine.FaultPoint
	from    string
	copyDir string

	once    sync.Once
	copyErr error
	reached atomic.Bool
}

func (c *crash) fault(_ context.Context, p engine.FaultPoint) error {
	if p != c.point {
		return nil
	}
	c.once.Do(func() { c.copyErr = copyTree(c.from, c.copyDir) })
	c.reached.Store(true)
	return errCrash
}

// copyTree copies a directory as it stands. Blocks of zeros become holes, for
// an index is mostly that.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copySparse(name, target)
	})
}

func copySparse(from, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var size int64
	err = eachPiece(from, func(piece []byte) (err error) {
		if !bytes.Equal(piece, zeros[:len(piece)]) {
			_, err = f.WriteAt(piece, size)
		}
		size += int64(len(piece))
		return err
	})
	return errors.Join(err, f.Truncate(size), f.Close())
}

var (
	zeros  = make([]byte, 64<<10)
	pieces = sync.Pool{New: func() any { return new([64 << 10]byte) }}
)

// eachPiece calls fn with the bytes of a file, piece by piece: under the race
// detector reading an index at once costs more than all the rest of a test.
func eachPiece(name string, fn func([]byte) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	buf := pieces.Get().(*[64 << 10]byte)
	defer pieces.Put(buf)
	for {
		n, err := f.Read(buf[:])
		if err == io.EOF {
			return nil
		}
		if err := errors.Join(err, fn(buf[:n])); err != nil {
			return err
		}
	}
}

// treeOf is every file below a directory with a checksum of its bytes.
func treeOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		sum, size := uint32(0), 0
		err = eachPiece(name, func(piece []byte) error {
			sum = crc32.Update(sum, crc32.IEEETable, piece)
			size += len(piece)
			return nil
		})
		files[strings.TrimPrefix(name, dir)] = fmt.Sprintf("%d bytes, %08x", size, sum)
		return err
	}))
	return files
}

// records collects what a store logs.
type records struct {
	mu  sync.Mutex // guards all
	all []slog.Record
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, record.Clone())
	return nil
}

// recovered is how much the last recovery had to look at; found is false when
// there was nothing to recover.
func (r *records) recovered() (counts map[string]int64, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts = map[string]int64{}
	for _, record := range r.all {
		if record.Message != "recovered" {
			continue
		}
		found = true
		record.Attrs(func(a slog.Attr) bool {
			if a.Value.Kind() == slog.KindInt64 {
				counts[a.Key] = a.Value.Int64()
			}
			return true
		})
	}
	return counts, found
}

// held counts the references to each content of a store, all of which it reads,
// and requires that the refcounts say the same.
func held(t testing.TB, f *engine.FileStore) map[string]int64 {
	t.Helper()
	counts, refs := map[string]int64{}, map[string]int64{}
	byPath := map[string]string{}
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		sum := sha256.Sum256(mustRetrieve(t, f, &e.Reference))
		name := hex.EncodeToString(sum[:4])
		counts[name]++
		refs[e.Path] = e.Refs
		byPath[e.Path] = name
	}
	summed := map[string]int64{}
	for path, n := range refs {
		summed[byPath[path]] += n
	}
	require.Equal(t, counts, summed, "refcounts are the numbers of references")
	return counts
}

// counted is what held answers for a store that holds exactly these contents.
func counted(contents ...[]byte) map[string]int64 {
	counts := map[string]int64{}
	for _, c := range contents {
		sum := sha256.Sum256(c)
		counts[hex.EncodeToString(sum[:4])]++
	}
	return counts
}

// leftInStaging lists what is in staging.
func leftInStaging(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".mediabolt", "staging", "*", "*"))
	require.NoError(t, err)
	return found
}

// requireRecovered opens a store after a crash and requires that it holds
// exactly the contents wanted, that nothing is left over, and that opening it
// again changes nothing.
func requireRecovered(t testing.TB, config engine.FileStoreConfig, want ...[]byte) {
	t.Helper()
	ctx := context.Background()
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	require.Empty(t, leftInStaging(t, config.BaseDir), "staging after Open")
	require.Equal(t, counted(want...), held(t, f))
	require.Empty(t, damage(t, f))
	require.NoError(t, f.Checkpoint(ctx))
	require.Empty(t, leftInStaging(t, config.BaseDir), "staging after the checkpoint")
	require.NoError(t, f.Abandon())

	before := treeOf(t, config.BaseDir)
	log := &records{}
	config.Logger = slog.New(log)
	f, err = engine.Open(ctx, config)
	require.NoError(t, err)
	_, again := log.recovered()
	require.False(t, again, "the first recovery left work behind")
	require.NoError(t, f.Abandon())
	require.Equal(t, before, treeOf(t, config.BaseDir), "reopening changes nothing")
}

// mustAbandon opens a store, runs fn, and lets go of it as a killed process
// would, with all debt of fn still in the index.
func mustAbandon(t testing.TB, config engine.FileStoreConfig, fn func(*engine.FileStore)) {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
		if p == engine.FaultSettled {
			return errCrash
		}
		return nil
	}))
	require.NoError(t, err)
	fn(f)
	require.NoError(t, f.Abandon())
}

// setup opens a store, runs fn, and closes the store.
func setup(t testing.TB, config engine.FileStoreConfig, fn func(*engine.FileStore)) {
	t.Helper()
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	fn(f)
	require.NoError(t, f.Close())
}

// operation is one call that crashes are forced in. It begins in a store that
// before made and that was closed.
type operation struct {
	name   string
	dedup  bool
	before func(t *testing.T, f *engine.FileStore, dir string) *storage.StorageReference
	run    func(f *engine.FileStore, ref *storage.StorageReference) error
	// without and with are what the store holds if the call did not happen
	// and if it did; points says which of the two is to be found after a
	// crash at each.
	without, with [][]byte
	points        map[engine.FaultPoint]bool
}

func storing(data []byte) func(*engine.FileStore, *storage.StorageReference) error {
	return func(f *engine.FileStore, _ *storage.StorageReference) error {
		_, err := f.Store(context.Background(), content(data), someIDs)
		return err
	}
}

func streaming(data []byte) func(*engine.FileStore, *storage.StorageReference) error {
	return func(f *engine.FileStore, _ *storage.StorageReference) error {
		_, err := f.StoreReader(context.Background(), bytes.NewReader(data), storage.MediaInfo{}, someIDs)
		return err
	}
}

func deleting(f *engine.FileStore, ref *storage.StorageReference) error {
	return f.Delete(context.Background(), ref)
}

func operations() []operation {
	inserts := map[engine.FaultPoint]bool{
		engine.FaultStaged: false, engine.FaultCommitted: true, engine.FaultPublished: true, engine.FaultSettled: true,
	}
	removes := map[engine.FaultPoint]bool{engine.FaultRemoved: true, engine.FaultSettled: true}
	unrelated := func(t *testing.T, f *engine.FileStore, _ string) *storage.StorageReference {
		return mustStore(t, f, other, someIDs)
	}
	twice := func(t *testing.T, f *engine.FileStore, _ string) *storage.StorageReference {
		mustStore(t, f, shared, storage.MediaMetadata{SessionID: "first"})
		return mustStore(t, f, shared, someIDs)
	}
	return []operation{
		{name: "new blob", dedup: true, before: unrelated, run: storing(small),
			without: [][]byte{other}, with: [][]byte{other, small}, points: inserts},
		{name: "new blob without dedup", before: unrelated, run: storing(other),
			without: [][]byte{other}, with: [][]byte{other, other}, points: inserts},
		{name: "empty blob", dedup: true, before: unrelated, run: storing([]byte{}),
			without: [][]byte{other}, with: [][]byte{other, {}}, points: inserts},
		{name: "stream", dedup: true, before: unrelated, run: streaming(large),
			without: [][]byte{other}, with: [][]byte{other, large}, points: inserts},
		{name: "stream without dedup", before: unrelated, run: streaming(large),
			without: [][]byte{other}, with: [][]byte{other, large}, points: inserts},
		{name: "further reference", dedup: true, before: unrelated, run: storing(other),
			without: [][]byte{other}, with: [][]byte{other, other},
			points: map[engine.FaultPoint]bool{engine.FaultSettled: true}},
		{name: "delete one of several", dedup: true, before: twice, run: deleting,
			without: [][]byte{shared, shared}, with: [][]byte{shared}, points: removes},
		{name: "delete the last", dedup: true, before: unrelated, run: deleting,
			without: [][]byte{other}, points: removes},
		{name: "delete without dedup", before: twice, run: deleting,
			without: [][]byte{shared, shared}, with: [][]byte{shared}, points: removes},
		{name: "store after the last was deleted", dedup: true, before: unrelated,
			run: func(f *engine.FileStore, ref *storage.StorageReference) error {
				return errors.Join(deleting(f, ref), storing(other)(f, nil))
			},
			with: [][]byte{other}, points: inserts},
	}
}

// Every operation is stopped at every point that it passes. Both what a killed
// process leaves and what a store leaves that saw an error there must recover.
func TestCrashAtEveryPoint(t *testing.T) {
	for _, op := range operations() {
		for point, happened := range op.points {
			t.Run(fmt.Sprintf("%s/%s", op.name, point), func(t *testing.T) {
				t.Parallel()
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: op.dedup}
				killed := stopOperation(t, config, op, point)
				want := op.without
				if happened {
					want = op.with
				}
				requireRecovered(t, config, want...)
				config.BaseDir = killed
				requireRecovered(t, config, want...)
			})
		}
	}
}

// stopOperation stops an operation at a point and returns the directory with
// the store as a killed process would leave it.
func stopOperation(t *testing.T, config engine.FileStoreConfig, op operation, point engine.FaultPoint) (killed string) {
	var ref *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) { ref = op.before(t, f, config.BaseDir) })
	c := &crash{point: point, from: config.BaseDir, copyDir: t.TempDir()}
	f, err := engine.Open(context.Background(), engine.WithFaults(config, c.fault))
	require.NoError(t, err)
	err = op.run(f, ref)
	if point == engine.FaultSettled {
		require.NoError(t, err)
		if err := f.Checkpoint(context.Background()); err != nil {
			require.ErrorIs(t, err, errCrash)
		}
	} else {
		require.ErrorIs(t, err, errCrash)
	}
	require.NoError(t, f.Abandon())
	require.True(t, c.reached.Load(), "the operation does not pass %s", point)
	require.NoError(t, c.copyErr)
	return c.copyDir
}

// A blob whose file is missing or cut short is healed by a Store of the same
// bytes. A crash in that leaves the blob healed or as it was, and then the next
// Store heals it. What is staged and whole heals it also without a commit.
func TestCrashWhileHealing(t *testing.T) {
	hurt := map[string]func(name string) error{
		"missing":   os.Remove,
		"cut short": func(name string) error { return os.Truncate(name, 7) },
	}
	points := map[engine.FaultPoint]bool{
		engine.FaultStaged: false, engine.FaultCommitted: true, engine.FaultPublished: true, engine.FaultSettled: true,
	}
	for name, harm := range hurt {
		for point, happened := range points {
			t.Run(fmt.Sprintf("%s/%s", name, point), func(t *testing.T) {
				t.Parallel()
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
				op := operation{run: storing(small), before: func(t *testing.T, f *engine.FileStore, dir string) *storage.StorageReference {
					ref := mustStore(t, f, small, someIDs)
					require.NoError(t, harm(filepath.Join(dir, ref.Metadata["path"])))
					return ref
				}}
				killed := stopOperation(t, config, op, point)
				want := [][]byte{small, small}
				if !happened {
					requireStillHurt(t, config)
					setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
					requireRecovered(t, config, want...)
					want = want[:1]
				} else {
					requireRecovered(t, config, want...)
				}
				config.BaseDir = killed
				requireRecovered(t, config, want...)
			})
		}
	}
}

// requireStillHurt requires that the one reference of a store is there, and
// that its file is known to be damaged.
func requireStillHurt(t testing.TB, config engine.FileStoreConfig) {
	t.Helper()
	setup(t, config, func(f *engine.FileStore) {
		require.Empty(t, leftInStaging(t, config.BaseDir))
		found := damage(t, f)
		require.Len(t, found, 1)
		require.Contains(t, []storage.FindingKind{storage.FindingMissing, storage.FindingSize}, found[0].Kind)
		stats, err := f.Stats(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, 1, stats.References)
	})
}

// A reference is readable from its commit on, also while its file is still in
// staging.
func TestCommittedBlobIsReadFromStaging(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var f *engine.FileStore
	var seen map[string]int64
	look := func(_ context.Context, p engine.FaultPoint) error {
		if p == engine.FaultCommitted {
			seen = held(t, f)
		}
		return nil
	}
	f = mustOpen(t, engine.WithFaults(config, look))
	mustStore(t, f, small, someIDs)
	require.Equal(t, counted(small), seen)
}

// Two callers bring the same new bytes at once and the process dies: one has
// committed and not published, the other has spooled its copy.
func TestCrashWithTwoEqualStores(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	killed := t.TempDir()
	committed, spooled := make(chan struct{}), make(chan struct{})
	var first sync.Once
	var copyErr error
	f, err := engine.Open(ctx, engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
		if p != engine.FaultCommitted {
			return nil
		}
		first.Do(func() {
			close(committed)
			<-spooled
			copyErr = copyTree(config.BaseDir, killed)
		})
		return errCrash
	}))
	require.NoError(t, err)
	errs := make(chan error, 2)
	go func() { errs <- streaming(large)(f, nil) }()
	<-committed
	go func() {
		r := io.MultiReader(bytes.NewReader(large), &atEnd{do: func() { close(spooled) }})
		_, err := f.StoreReader(ctx, r, storage.MediaInfo{}, storage.MediaMetadata{})
		errs <- err
	}()
	// The second finds what the first has staged, publishes it and shares it.
	require.ErrorIs(t, errors.Join(<-errs, <-errs), errCrash)
	require.NoError(t, copyErr)
	require.NoError(t, f.Abandon())

	requireRecovered(t, config, large, large)
	config.BaseDir = killed
	requireRecovered(t, config, large)
}

// atEnd is an empty reader that does something once when it is read.
type atEnd struct {
	do   func()
	once sync.Once
}

func (a *atEnd) Read([]byte) (int, error) {
	a.once.Do(a.do)
	return 0, io.EOF
}

// A process that dies in the middle of a stream leaves part of a spool file.
func TestCrashInTheMiddleOfAStream(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	mustStore(t, f, other, someIDs)
	killed := t.TempDir()
	var copyErr error
	half := &atEnd{do: func() { copyErr = copyTree(config.BaseDir, killed) }}
	r := io.MultiReader(bytes.NewReader(large[:2<<20]), half, bytes.NewReader(large[2<<20:]))
	_, err := f.StoreReader(context.Background(), r, storage.MediaInfo{}, someIDs)
	require.NoError(t, err)
	require.NoError(t, copyErr)
	require.Len(t, leftInStaging(t, killed), 2, "the first blob's staged name and the spool")
	config.BaseDir = killed
	requireRecovered(t, config, other)
}

// Sidecar lines that are not known to be durable may be there, cut short, full
// of zeros or missing; the next opening completes them.
func TestCrashTearsSidecarLines(t *testing.T) {
	base := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var path string
	setup(t, base, func(f *engine.FileStore) {
		path = mustStore(t, f, shared, someIDs).Metadata["path"] + ".meta"
	})
	settled := fileSize(t, filepath.Join(base.BaseDir, path))
	var fresh string
	mustAbandon(t, base, func(f *engine.FileStore) {
		fresh = mustStore(t, f, small, someIDs).Metadata["path"] + ".meta"
		mustStore(t, f, shared, storage.MediaMetadata{Labels: map[string]string{"quoted": `{"v":1,"ref":`}})
		ref := mustStore(t, f, shared, storage.MediaMetadata{RunID: "run"})
		require.NoError(t, f.Delete(context.Background(), ref))
		require.NoError(t, f.WriteSidecars(context.Background()))
	})
	want := [][]byte{small, shared, shared}

	torn := func(t *testing.T, name string, harm func(name string, size int64) error) {
		t.Helper()
		config := base
		config.BaseDir = t.TempDir()
		require.NoError(t, copyTree(base.BaseDir, config.BaseDir))
		name = filepath.Join(config.BaseDir, name)
		require.NoError(t, harm(name, fileSize(t, name)))
		requireRecovered(t, config, want...)
	}
	full := fileSize(t, filepath.Join(base.BaseDir, path))
	require.Greater(t, full, settled)
	for _, kept := range []int64{settled, settled + 1, settled + 6, (settled + full) / 2, full - 30, full - 2, full - 1, full} {
		t.Run(fmt.Sprintf("grown sidecar, %d of %d bytes", kept, full), func(t *testing.T) {
			t.Parallel()
			torn(t, path, func(name string, _ int64) error { return os.Truncate(name, kept) })
			torn(t, path, func(name string, _ int64) error { return zeroFrom(name, kept, full) })
		})
	}
	for _, parts := range []int64{0, 1, 2, 3} {
		t.Run(fmt.Sprintf("new sidecar, %d of 3 parts", parts), func(t *testing.T) {
			t.Parallel()
			torn(t, fresh, func(name string, size int64) error { return os.Truncate(name, size*parts/3) })
			torn(t, fresh, func(name string, size int64) error { return zeroFrom(name, size*parts/3, size) })
		})
	}
	t.Run("new sidecar missing", func(t *testing.T) {
		torn(t, fresh, func(name string, _ int64) error { return os.Remove(name) })
	})
	t.Run("half a line written after the last", func(t *testing.T) {
		torn(t, path, func(name string, _ int64) error { return appendBytes(name, `{"v":1,"ref":{"id":"a1b2`) })
	})
}

// The line that tells of the blob may be lost with a block while later lines
// stand, and the reference of that line be ended by then.
func TestCrashLosesTheFirstSidecarLine(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var name string
	mustAbandon(t, config, func(f *engine.FileStore) {
		first := mustStore(t, f, small, someIDs)
		name = filepath.Join(config.BaseDir, first.Metadata["path"]+".meta")
		mustStore(t, f, small, someIDs)
		require.NoError(t, f.Delete(context.Background(), first))
		require.NoError(t, f.WriteSidecars(context.Background()))
	})
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	clear(data[:bytes.IndexByte(data, '\n')])
	require.NoError(t, os.WriteFile(name, data, 0o600))
	requireRecovered(t, config, small)
}

func fileSize(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	return info.Size()
}

// zeroFrom makes a file read as zeros from an offset to its size.
func zeroFrom(name string, offset, size int64) error {
	return errors.Join(os.Truncate(name, offset), os.Truncate(name, size))
}

func appendBytes(name, s string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// busyStore makes a store that died with work of every kind under way, and
// returns what it holds.
func busyStore(t *testing.T, config engine.FileStoreConfig) [][]byte {
	var gone, one *storage.StorageReference
	setup(t, config, func(f *engine.FileStore) {
		gone = mustStore(t, f, other, storage.MediaMetadata{SessionID: "gone"})
		one = mustStore(t, f, shared, someIDs)
		mustStore(t, f, shared, someIDs)
		mustStore(t, f, shared, someIDs)
	})
	var stop atomic.Value
	stop.Store(engine.FaultSettled)
	f, err := engine.Open(context.Background(), engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
		if p == engine.FaultSettled || p == stop.Load() {
			return errCrash
		}
		return nil
	}))
	require.NoError(t, err)
	mustStore(t, f, small, someIDs)
	sidecar := mustStore(t, f, small, someIDs).Metadata["path"] + ".meta"
	stop.Store(engine.FaultRemoved)
	require.ErrorIs(t, f.Delete(context.Background(), gone), errCrash)
	require.ErrorIs(t, f.Delete(context.Background(), one), errCrash)
	stop.Store(engine.FaultCommitted)
	require.ErrorIs(t, streaming(large)(f, nil), errCrash)
	require.ErrorIs(t, storing([]byte("late"))(f, nil), errCrash)
	require.NoError(t, f.WriteSidecars(context.Background()))
	require.NoError(t, f.Abandon())

	require.NoError(t, appendBytes(filepath.Join(config.BaseDir, sidecar), `{"v":1,"ref":{"id`))
	stageByHand(t, config.BaseDir, storage.DigestKey(sha256.Sum256([]byte("nobody's"))), []byte("nobody's"))
	spool := filepath.Join(config.BaseDir, ".mediabolt", "staging", "3", storage.UUID{15: 3}.String()+".part")
	require.NoError(t, os.WriteFile(spool, large[:5000], 0o600))
	return [][]byte{small, small, shared, shared, large, []byte("late")}
}

// stageByHand puts bytes where a blob of that key is staged.
func stageByHand(t testing.TB, dir string, key storage.BlobKey, data []byte) string {
	t.Helper()
	shard := fmt.Sprint(int(key[len(key)-1]) % 8)
	name := filepath.Join(dir, ".mediabolt", "staging", shard, key.String())
	require.NoError(t, os.WriteFile(name, data, 0o600))
	return name
}

// expiring is a context that ends at the nth look at it.
type expiring struct {
	context.Context
	left atomic.Int64
}

func (e *expiring) Err() error {
	if e.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A recovery that is itself interrupted, at any of its steps, is finished by
// the next one.
func TestCrashDuringRecovery(t *testing.T) {
	t.Parallel()
	base := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	want := busyStore(t, base)
	interrupted := 0
	for n := int64(1); ; n++ {
		config := base
		config.BaseDir = t.TempDir()
		require.NoError(t, copyTree(base.BaseDir, config.BaseDir))
		ctx := &expiring{Context: context.Background()}
		ctx.left.Store(n)
		f, err := engine.Open(ctx, config)
		if err == nil {
			require.NoError(t, f.Abandon())
			requireRecovered(t, config, want...)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, config.BaseDir)
		requireRecovered(t, config, want...)
		require.NoError(t, os.RemoveAll(config.BaseDir))
		interrupted++
	}
	require.Greater(t, interrupted, 20, "the context is looked at between the steps of recovery")
}

// A process that dies right after each opening still makes progress.
func TestCrashAfterEveryOpening(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	want := busyStore(t, config)
	for range 3 {
		mustAbandon(t, config, func(*engine.FileStore) {})
	}
	requireRecovered(t, config, want...)
}

// What is left in staging by hand stands for every leftover, also one that
// never became durable and holds garbage.
func TestLeftoversInStaging(t *testing.T) {
	key := storage.DigestKey(sha256.Sum256(small))
	garbage := bytes.Repeat([]byte{0xa5}, len(small))
	cases := []struct {
		name    string
		remove  bool   // the final file
		final   []byte // what it becomes, if not nil
		staged  []byte
		missing bool // afterwards
	}{
		{name: "good copy beside the final file", staged: small},
		{name: "garbage beside the final file", staged: garbage},
		{name: "half a copy beside the final file", staged: small[:100]},
		{name: "good copy beside a damaged final file", final: garbage, staged: small},
		{name: "good copy, no final file", remove: true, staged: small},
		{name: "garbage, no final file", remove: true, staged: garbage, missing: true},
		{name: "half a copy, no final file", remove: true, staged: small[:100], missing: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			setup(t, config, func(f *engine.FileStore) {
				ref := mustStore(t, f, small, someIDs)
				if c.remove {
					require.NoError(t, os.Remove(filepath.Join(config.BaseDir, ref.Metadata["path"])))
				}
				if c.final != nil {
					require.NoError(t, os.WriteFile(filepath.Join(config.BaseDir, ref.Metadata["path"]), c.final, 0o600))
				}
			})
			stageByHand(t, config.BaseDir, key, c.staged)
			if !c.missing {
				requireRecovered(t, config, small)
				return
			}
			requireStillHurt(t, config)
			setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
			requireRecovered(t, config, small, small)
		})
	}
}

// Recovery looks at what was under way, and at nothing else, however much the
// store holds.
func TestRecoveryIsBoundedByWhatWasUnderWay(t *testing.T) {
	const settled, writers = 5000, 100
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	var group sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		group.Go(func() {
			m := storage.MediaMetadata{SessionID: fmt.Sprint("session ", w)}
			for i := range settled / writers {
				_, err := f.Store(ctx, content(fmt.Appendf(nil, "blob %d of %d", i, w)), m)
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, f.Close())

	var late []*storage.StorageReference
	mustAbandon(t, config, func(f *engine.FileStore) {
		for i := range 3 {
			late = append(late, mustStore(t, f, fmt.Appendf(nil, "late %d", i), someIDs))
		}
		require.NoError(t, f.Delete(ctx, late[0]))
	})
	log := &records{}
	config.Logger = slog.New(log)
	f = mustOpen(t, config)
	counts, found := log.recovered()
	require.True(t, found)
	require.LessOrEqual(t, counts["staged"], int64(3))
	require.EqualValues(t, 1, counts["unlinks"])
	require.EqualValues(t, 3, counts["sidecar_lines"])
	require.Empty(t, leftInStaging(t, config.BaseDir))
	stats, err := f.Stats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, settled+2, stats.References)
	require.Equal(t, []byte("late 2"), mustRetrieve(t, f, late[2]))
}

// A store without its index is refused, and whole again once that is back.
func TestLostIndexIsRefused(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) { mustStore(t, f, small, someIDs) })
	index := filepath.Join(config.BaseDir, ".mediabolt", "index.db")
	aside := filepath.Join(t.TempDir(), "index.db")
	require.NoError(t, os.Rename(index, aside))
	before := treeOf(t, config.BaseDir)
	for range 2 {
		_, err := engine.Open(context.Background(), config)
		require.ErrorIs(t, err, storage.ErrCorrupted)
		require.ErrorContains(t, err, filepath.Dir(index))
	}
	require.Equal(t, before, treeOf(t, config.BaseDir), "the refusal changes nothing")
	require.NoError(t, os.Rename(aside, index))
	requireRecovered(t, config, small)
}

// When the clock is set back between two openings, new rows sort before old
// ones. Recovery must not go by time: rows of the future and rows older than
// everything are completed alike.
func TestClockSetBack(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	setup(t, config, func(f *engine.FileStore) { mustStore(t, f, other, someIDs) })
	commitInTheFuture(t, config.BaseDir, small)
	requireRecovered(t, config, other, small)

	mustAbandon(t, config, func(f *engine.FileStore) {
		mustStore(t, f, shared, someIDs)
		again := mustStore(t, f, small, someIDs)
		require.NoError(t, f.Delete(ctx, again))
		require.NoError(t, f.WriteSidecars(ctx))
		sidecar := filepath.Join(config.BaseDir, again.Metadata["path"]+".meta")
		require.NoError(t, os.Truncate(sidecar, fileSize(t, sidecar)-10))
	})
	requireRecovered(t, config, other, small, shared)
}

// commitInTheFuture leaves a store as if it had died between commit and publish
// of a blob, at a time that is long after now.
func commitInTheFuture(t testing.TB, dir string, data []byte) {
	t.Helper()
	future := time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
	digest := storage.Digest(sha256.Sum256(data))
	id := storage.ID{Hash: [3]byte(digest[:3]), UUID: storage.UUID{6: 0x70, 8: 0x80, 15: 1}}
	for i := range 6 {
		id.UUID[i] = byte(future.UnixMilli() >> (40 - 8*i))
	}
	key := storage.DigestKey(digest)
	stageByHand(t, dir, key, data)
	root, err := os.OpenRoot(filepath.Join(dir, ".mediabolt"))
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	index, err := boltindex.Open(context.Background(), boltindex.Config{Root: root, Organization: storage.OrganizationBySession})
	require.NoError(t, err)
	_, err = index.Add(context.Background(), &storage.Addition{
		Staged: true,
		Ref: storage.RefRow{UUID: id.UUID, Blob: key, Type: "document", MimeType: "text/plain",
			Metadata: storage.MediaMetadata{SessionID: "future", CreatedAt: future}},
		Blob: storage.BlobRow{Key: key, Path: "future/no-conversation/" + id.String() + ".txt", Organization: storage.OrganizationBySession,
			Size: int64(len(data)), CRC: crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), Digest: digest,
			MimeType: "text/plain", CreatedAt: future},
	})
	require.NoError(t, err)
	require.NoError(t, index.Close())
}
