package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// findings is all that a Verify finds, notices too.
func findings(t testing.TB, f *engine.FileStore, opts engine.VerifyOptions) []storage.Finding {
	t.Helper()
	var found []storage.Finding
	for finding, err := range f.Verify(context.Background(), opts) {
		require.NoError(t, err)
		found = append(found, finding)
	}
	return found
}

// editClosed opens a store's index with bbolt, while the store is closed, changes
// it, and removes the sums, which would tell.
func editClosed(t *testing.T, baseDir string, fn func(*bolt.Tx) error) {
	t.Helper()
	control := filepath.Join(baseDir, ".mediabolt")
	db, err := bolt.Open(filepath.Join(control, "index.db"), 0o600, &bolt.Options{Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
	require.NoError(t, os.Remove(filepath.Join(control, "index.sums")))
}

// firstOf is the first key of a bucket.
func firstOf(tx *bolt.Tx, bucket string) (*bolt.Bucket, []byte) {
	b := tx.Bucket([]byte(bucket))
	key, _ := b.Cursor().First()
	return b, key
}

// dropFirst removes the first row of a bucket.
func dropFirst(bucket string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		b, key := firstOf(tx, bucket)
		return b.Delete(key)
	}
}

// emptyFirst makes the first row of a bucket unreadable.
func emptyFirst(bucket string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		b, key := firstOf(tx, bucket)
		return b.Put(key, nil)
	}
}

func plant(name, text string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

// Every kind of finding, made for real.
func TestVerifyFindsEveryKind(t *testing.T) {
	orphan := "s/c/a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg.png"
	toBlob := func(do func(*testing.T, string)) func(*testing.T, string, string) {
		return func(t *testing.T, dir, blob string) { do(t, filepath.Join(dir, blob)) }
	}
	remove := func(t *testing.T, name string) { require.NoError(t, os.Remove(name)) }
	cases := []struct {
		name   string
		open   func(t *testing.T, dir, blob string) // beside an open store
		closed func(*bolt.Tx) error                 // or while it is closed
		kind   storage.FindingKind
		notice bool
		bytes  bool // only a look at the bytes tells
	}{
		{name: "missing", open: toBlob(remove), kind: storage.FindingMissing},
		{name: "size", open: toBlob(truncate(5)), kind: storage.FindingSize},
		{name: "checksum", open: toBlob(flip(7)), kind: storage.FindingChecksum, bytes: true},
		{name: "unreadable", open: toBlob(func(t *testing.T, name string) {
			remove(t, name)
			require.NoError(t, os.Mkdir(name, 0o700))
		}), kind: storage.FindingUnreadable},
		{name: "orphan", open: plant(orphan, "x"), kind: storage.FindingOrphan},
		{name: "orphan sidecar", open: plant(orphan+".meta", "x"), kind: storage.FindingOrphan},
		{name: "staging", open: plant(".mediabolt/staging/5/u01a2053bde4471fdb0cf9b0a524478cd", "x"), kind: storage.FindingStaging},
		{name: "spool", open: plant(".mediabolt/staging/5/06h0aeyy8hrzvc6fkc554h3rsg.part", "x"), kind: storage.FindingStaging},
		{name: "sidecar", open: toBlob(func(t *testing.T, name string) { remove(t, name+".meta") }), kind: storage.FindingSidecar},
		{name: "foreign", open: plant("s/notes.txt", "x"), kind: storage.FindingForeignFile, notice: true},
		{name: "foreign in staging", open: plant(".mediabolt/staging/5/notes.txt", "x"), kind: storage.FindingForeignFile, notice: true},
		{name: "litter", open: plant("s/.DS_Store", "x"), kind: storage.FindingLitter, notice: true},
		{name: "refcount", closed: dropFirst("refs"), kind: storage.FindingRefcount},
		{name: "dangling", closed: dropFirst("by_session"), kind: storage.FindingDangling},
		{name: "counter", closed: func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("counters")) }, kind: storage.FindingCounter},
		{name: "index", closed: emptyFirst("blobs"), kind: storage.FindingIndex},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			ref := mustStore(t, f, small, someIDs)
			mustStore(t, f, other, someIDs)
			require.NoError(t, f.Checkpoint(ctx))
			if c.open != nil {
				c.open(t, config.BaseDir, ref.Metadata["path"])
			} else {
				require.NoError(t, f.Close())
				editClosed(t, config.BaseDir, c.closed)
				f, err = engine.Open(ctx, config)
				require.NoError(t, err)
			}
			for _, depth := range []engine.VerifyDepth{"", engine.DepthQuick, engine.DepthChecksum, engine.DepthDeep} {
				found := map[storage.FindingKind]storage.Severity{}
				for _, finding := range findings(t, f, engine.VerifyOptions{Depth: depth}) {
					require.NotEmpty(t, finding.Detail)
					found[finding.Kind] = finding.Severity
				}
				if c.bytes && depth == engine.DepthQuick {
					require.Empty(t, found)
					continue
				}
				severity, is := found[c.kind]
				require.True(t, is, "%s: %v", depth, found)
				require.Equal(t, c.notice, severity == storage.SeverityNotice)
			}
		})
	}
}

// A deep look tells bytes whose CRC-32C was made to be right.
func TestDeepVerifyComparesDigests(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	data := bytesOf(5000, 1)
	ref := mustStore(t, f, data, someIDs)
	require.NoError(t, f.Checkpoint(context.Background()))
	path := filepath.Join(config.BaseDir, ref.Metadata["path"])
	require.NoError(t, os.WriteFile(path, sameCRC(data), 0o600))

	require.Empty(t, findings(t, f, engine.VerifyOptions{Depth: engine.DepthChecksum}))
	found := findings(t, f, engine.VerifyOptions{Depth: engine.DepthDeep})
	require.Len(t, found, 1)
	require.Equal(t, storage.FindingChecksum, found[0].Kind)
	require.Contains(t, found[0].Detail, "SHA-256")
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// sameCRC is other bytes of the same CRC-32C: its polynomial, 1 0001 1110 1101
// 1100 0110 1111 0100 0001, is added somewhere, least significant bit first.
func sameCRC(data []byte) []byte {
	forged := bytes.Clone(data)
	// The coefficients of the polynomial from x^32 to x^0.
	const polynomial = uint64(0x11EDC6F41)
	for i := range 33 {
		if polynomial>>(32-i)&1 == 1 {
			bit := 8*100 + i
			forged[bit/8] ^= 1 << (bit % 8)
		}
	}
	return forged
}

// Litter is one notice for a directory, and none of the store's own names.
func TestLitterIsToldApart(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, storage.MediaMetadata{SessionID: "@eaDir", ConversationID: "Thumbs.db"})
	require.True(t, strings.HasPrefix(ref.Metadata["path"], "@eaDir/Thumbs.db/"))
	for _, name := range []string{
		"lost+found/#123", ".DS_Store", "s/desktop.ini", "s/Thumbs.db", "s/@eaDir/x.jpg", "s/@eaDir/y/z.jpg", "._x", ".nfs0001", ".Trash-1000/a", ".Trash-1000/b",
	} {
		plant(name, "x")(t, config.BaseDir, "")
	}
	var kinds, paths []string
	for _, finding := range findings(t, f, engine.VerifyOptions{}) {
		kinds, paths = append(kinds, string(finding.Kind)), append(paths, finding.Path)
	}
	require.ElementsMatch(t, []string{
		"lost+found", ".DS_Store", "s/desktop.ini", "s/Thumbs.db", "s/@eaDir", "._x", ".nfs0001", ".Trash-1000",
	}, paths)
	for _, kind := range kinds {
		require.Equal(t, string(storage.FindingLitter), kind)
	}
}

// No depth finds anything while 16 goroutines store, share, read and delete, in
// the default durability.
func TestVerifyBesideMuchTraffic(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	for i := range 100 {
		mustStore(t, f, bytesOf(20_000, byte(100+i)), someIDs)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var ended atomic.Int64
	for i := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				data := bytesOf(2000+random.IntN(4)*30_000, byte(random.IntN(8)))
				ref, err := storeBytes(f, data, i)
				if err == nil {
					err = wantBytes(f, ref, data)
				}
				if err == nil && random.IntN(4) > 0 {
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
	for round, depth := range []engine.VerifyDepth{engine.DepthDeep, engine.DepthQuick, engine.DepthDeep, engine.DepthDeep, engine.DepthQuick, engine.DepthDeep} {
		require.Eventually(t, func() bool { return ended.Load() > int64(round)*40 }, time.Minute, time.Millisecond)
		require.Empty(t, findings(t, f, engine.VerifyOptions{Depth: depth, Workers: 4}))
	}
}

// resumed verifies with interruptions after each few findings, until nothing is
// left, and returns what was found each time.
func resumed(t *testing.T, f *engine.FileStore, opts engine.VerifyOptions, every int) (parts [][]storage.Finding, last engine.VerifyProgress) {
	t.Helper()
	for {
		ctx, interrupt := context.WithCancel(context.Background())
		var part []storage.Finding
		opts.Progress = func(p engine.VerifyProgress) { last = p }
		stopped := false
		for finding, err := range f.Verify(ctx, opts) {
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				stopped = true
				break
			}
			if part = append(part, finding); len(part) == every {
				interrupt()
			}
		}
		interrupt()
		parts = append(parts, part)
		if !stopped {
			return parts, last
		}
		opts = engine.VerifyOptions{Resume: last.Position, Workers: opts.Workers, Rate: opts.Rate}
	}
}

// A verification that is interrupted again and again covers every blob, and none
// before the place where it went on.
func TestVerifyGoesOnWhereItStopped(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	const blobs, size = 1000, 1000
	all := map[string]bool{}
	for i := range blobs {
		ref := mustStore(t, f, fmt.Appendf(bytesOf(size-4, byte(i)), "%04d", i), someIDs)
		all["d"+ref.Metadata["sha256"]] = true
	}
	require.NoError(t, f.Checkpoint(context.Background()))
	for _, name := range blobFiles(t, config.BaseDir) {
		flip(5)(t, filepath.Join(config.BaseDir, name))
	}
	parts, last := resumed(t, f, engine.VerifyOptions{Depth: engine.DepthDeep, Workers: 1}, 100)
	require.Greater(t, len(parts), 5)
	times := map[string]int{}
	for _, part := range parts {
		for _, finding := range part {
			require.True(t, all[finding.Blob], finding.Blob)
			times[finding.Blob]++
		}
	}
	require.Len(t, times, blobs, "every blob is looked at")
	// The pieces that were begun when it stopped are looked at again, no others.
	again := 0
	for _, n := range times {
		again += n - 1
	}
	require.LessOrEqual(t, again, (len(parts)-1)*2*64)
	require.EqualValues(t, blobs, last.Blobs)
	require.GreaterOrEqual(t, last.Bytes, int64(blobs*size))
}

// The position that was told is right: what is behind it, and only that, is read
// by the one who goes on there.
func TestResumeReadsExactlyTheRest(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	const blobs, size = 600, 1000
	for i := range blobs {
		mustStore(t, f, bytesOf(size, byte(i)), someIDs)
	}
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	var at engine.VerifyProgress
	// 100,000 bytes a second, so that it is in the middle at the first look.
	opts := engine.VerifyOptions{Rate: 100_000, Progress: func(p engine.VerifyProgress) {
		if at = p; p.Blobs > 200 {
			interrupt()
		}
	}}
	for _, err := range f.Verify(ctx, opts) {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NotEmpty(t, at.Position)
	for _, err := range f.Verify(context.Background(), engine.VerifyOptions{Resume: at.Position, Depth: engine.DepthDeep}) {
		require.ErrorIs(t, err, storage.ErrInvalidQuery, "it was not a deep one")
		require.ErrorContains(t, err, "depth checksum")
	}
	var first, last engine.VerifyProgress
	require.Empty(t, findings(t, f, engine.VerifyOptions{Resume: at.Position, Progress: func(p engine.VerifyProgress) {
		if first.Step == "" {
			first = p
		}
		last = p
	}}))
	require.Greater(t, first.Blobs, int64(0))
	require.Less(t, first.Blobs, int64(blobs))
	require.EqualValues(t, first.Blobs*size, first.Bytes)
	require.EqualValues(t, blobs, last.Blobs)
	require.EqualValues(t, blobs*size, last.Bytes)
	require.Zero(t, last.Files, "the tree was walked before")

	for _, bad := range []string{"x", "AA", string(at.Position[:len(at.Position)-1]), string(at.Position) + "A", strings.ToUpper(string(at.Position))} {
		for _, err := range f.Verify(context.Background(), engine.VerifyOptions{Resume: engine.VerifyPosition(bad)}) {
			require.ErrorIs(t, err, storage.ErrInvalidQuery, bad)
			require.ErrorContains(t, err, "position")
		}
	}
}

// A sample reads about as many blobs as it says, the same ones for a seed, and
// leaves out no look at sizes.
func TestVerifySample(t *testing.T) {
	t.Parallel()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	const blobs, size = 2000, 50
	for i := range blobs {
		mustStore(t, f, bytesOf(size, byte(i)), someIDs)
	}
	var last engine.VerifyProgress
	read := func(sample float64, seed uint64) int64 {
		opts := engine.VerifyOptions{Depth: engine.DepthDeep, Sample: sample, Seed: seed, Progress: func(p engine.VerifyProgress) { last = p }}
		require.Empty(t, findings(t, f, opts))
		require.EqualValues(t, blobs, last.Blobs)
		require.Equal(t, sample, last.Sample)
		require.Equal(t, seed, last.Seed)
		return last.Bytes / size
	}
	ten := read(10, 1)
	// A binomial distribution of 2000 and 0.1: 13.4 is one standard deviation.
	require.InDelta(t, 200, ten, 6*13.4)
	require.Equal(t, ten, read(10, 1))
	require.InDelta(t, 1000, read(50, 2), 6*22.4)
	require.EqualValues(t, blobs, read(100, 3))
	require.Less(t, read(0.01, 4), int64(10))
}

// What is read stays within a fifth of the rate, however many workers there are.
func TestVerifyRate(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	for i := range 20 {
		mustStore(t, f, bytesOf(200_000, byte(i)), someIDs)
	}
	for _, workers := range []int{1, 4} {
		begun := time.Now()
		require.Empty(t, findings(t, f, engine.VerifyOptions{Rate: 2_000_000, Workers: workers}))
		rate := 4_000_000 / time.Since(begun).Seconds()
		require.InDelta(t, 2_000_000, rate, 400_000, "%d workers", workers)
	}
}

func TestVerifyOptionsThatCannotBe(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	for word, opts := range map[string]engine.VerifyOptions{
		"Depth": {Depth: "deepest"}, "Sample": {Sample: 101}, "Rate": {Rate: -1}, "Workers": {Workers: -1},
	} {
		n := 0
		for _, err := range f.Verify(context.Background(), opts) {
			require.ErrorIs(t, err, storage.ErrInvalidQuery)
			require.ErrorContains(t, err, word)
			n++
		}
		require.Equal(t, 1, n)
	}
}

// A loop that ends early ends the verification, and its goroutines.
func TestVerifyThatIsLeftEarly(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	for i := range 500 {
		mustStore(t, f, bytesOf(100, byte(i)), someIDs)
	}
	require.NoError(t, f.Checkpoint(context.Background()))
	for _, name := range blobFiles(t, config.BaseDir) {
		require.NoError(t, os.Remove(filepath.Join(config.BaseDir, name)))
	}
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		require.NoError(t, err)
		require.Contains(t, []storage.FindingKind{storage.FindingMissing, storage.FindingOrphan}, finding.Kind)
		break
	}
	require.NoError(t, f.Close(), "waits for the goroutines")
}
