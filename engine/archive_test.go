package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// known is what must be the same of a reference wherever it goes.
type known struct {
	engine.Entry
	Content [sha256.Size]byte
}

// whatIs is all that a store knows, by ID, without what belongs to its own tree.
func whatIs(t testing.TB, f *engine.FileStore) map[string]known {
	t.Helper()
	all := map[string]known{}
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		e.Path, e.Reference.Metadata["path"], e.Reference.Metadata["org"] = "", "", ""
		all[e.Reference.ID] = known{e, sha256.Sum256(mustRetrieve(t, f, &e.Reference))}
	}
	// Reading notes the time, but not before its hour is over.
	for id, k := range all {
		k.AccessedAt = time.Time{}
		all[id] = k
	}
	return all
}

// mixedStore has blobs of every kind: of their own, shared, streamed, empty.
func mixedStore(t testing.TB) (f *engine.FileStore, dir string) {
	t.Helper()
	dir = t.TempDir()
	off := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone})
	for i := range 3 {
		mustStore(t, off, small, storage.MediaMetadata{SessionID: "own", MessageIndex: i})
	}
	require.NoError(t, off.Close())
	f = mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone})
	for i := range 4 {
		mustStore(t, f, shared, storage.MediaMetadata{
			SessionID: fmt.Sprint("s", i%2), UserID: "user", CreatedAt: time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC),
			Labels: map[string]string{"name": "日の出", "n": fmt.Sprint(i), "nul": "\x00\n"},
		})
	}
	mustStore(t, f, small, storage.MediaMetadata{SessionID: "../../etc", ConversationID: strings.Repeat("long ", 100)})
	mustStore(t, f, large, storage.MediaMetadata{RunID: "run"})
	_, err := f.StoreReader(context.Background(), strings.NewReader(""), storage.MediaInfo{MimeType: "image/png"}, storage.MediaMetadata{})
	require.NoError(t, err)
	return f, dir
}

func mustExport(t testing.TB, f *engine.FileStore, q engine.Query) []byte {
	t.Helper()
	var archive bytes.Buffer
	_, err := f.Export(context.Background(), &archive, q)
	require.NoError(t, err)
	return archive.Bytes()
}

func newStore(t testing.TB, mode storage.OrganizationMode) (f *engine.FileStore, dir string) {
	t.Helper()
	dir = t.TempDir()
	return mustOpen(t, engine.FileStoreConfig{BaseDir: dir, Organization: mode, Sync: engine.SyncNone}), dir
}

// stream hides everything but Read, and gives little at a time.
type stream struct{ r io.Reader }

func (s stream) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1000)]) }

func TestImportBringsWhatExportTook(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	from, _ := mixedStore(t)
	var archive bytes.Buffer
	exported, err := from.Export(ctx, &archive, engine.Query{})
	require.NoError(t, err)
	require.Equal(t, engine.Exported{References: 10, Blobs: 7, Bytes: mustStats(t, from).PhysicalBytes}, exported)

	want := whatIs(t, from)
	require.Len(t, want, 10)
	for _, mode := range storage.OrganizationModes() {
		t.Run(string(mode), func(t *testing.T) {
			to, dir := newStore(t, mode)
			imported, err := to.Import(ctx, stream{bytes.NewReader(archive.Bytes())})
			require.NoError(t, err)
			require.Equal(t, engine.Imported{References: 10, Blobs: 7, Bytes: exported.Bytes}, imported)
			require.Equal(t, want, whatIs(t, to))

			// Once more adds nothing, and neither does it where all of it comes from.
			for _, f := range []*engine.FileStore{to, from} {
				again, err := f.Import(ctx, bytes.NewReader(archive.Bytes()))
				require.NoError(t, err)
				require.Equal(t, engine.Imported{Present: 10, Bytes: exported.Bytes}, again)
				require.Equal(t, want, whatIs(t, f))
			}
			require.Empty(t, stagedFiles(t, to, dir))

			// It lasts, and goes as it came.
			require.NoError(t, to.Close())
			to = mustOpen(t, engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone})
			require.Equal(t, want, whatIs(t, to))
			twice := mustExport(t, to, engine.Query{})
			third, _ := newStore(t, storage.OrganizationFlat)
			_, err = third.Import(ctx, bytes.NewReader(twice))
			require.NoError(t, err)
			require.Equal(t, want, whatIs(t, third))
		})
	}
}

// What was deleted and comes back must not meet the removal of what it was.
func TestImportAfterDeletion(t *testing.T) {
	ctx := context.Background()
	f, dir := mixedStore(t)
	want := whatIs(t, f)
	archive := mustExport(t, f, engine.Query{})
	before := blobFiles(t, dir)
	for id := range want {
		require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: id}))
	}
	_, err := f.Import(ctx, bytes.NewReader(archive))
	require.NoError(t, err)
	require.Equal(t, want, whatIs(t, f))
	for _, name := range blobFiles(t, dir) {
		require.NotContains(t, before, name, "a path is never used twice")
	}
	require.NoError(t, f.Close())
	f = mustOpen(t, engine.FileStoreConfig{BaseDir: dir})
	require.Equal(t, want, whatIs(t, f))

	// Some of a blob's references are there, some are not.
	for id, k := range want {
		if k.Metadata.Labels["n"] == "1" || k.Metadata.SessionID == "own" && k.Metadata.MessageIndex == 0 {
			require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: id}))
		}
	}
	imported, err := f.Import(ctx, bytes.NewReader(archive))
	require.NoError(t, err)
	require.EqualValues(t, 2, imported.References)
	require.EqualValues(t, 1, imported.Blobs)
	require.Equal(t, want, whatIs(t, f))
}

func TestExportTakesWhatTheQueryLists(t *testing.T) {
	ctx := context.Background()
	from, _ := mixedStore(t)
	for name, q := range map[string]engine.Query{
		"session": {SessionID: "s1"}, "newest": {Order: engine.Newest}, "label": {Labels: map[string]string{"n": "2"}},
		"own": {SessionID: "own"}, "digest": {Digest: sha256.Sum256(small)}, "nothing": {SessionID: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			to, _ := newStore(t, "")
			_, err := to.Import(ctx, bytes.NewReader(mustExport(t, from, q)))
			require.NoError(t, err)
			listed := 0
			for e, err := range from.List(ctx, q) {
				require.NoError(t, err)
				require.Equal(t, mustRetrieve(t, from, &e.Reference), mustRetrieve(t, to, &e.Reference))
				listed++
			}
			require.EqualValues(t, listed, mustStats(t, to).References)
		})
	}
	for _, q := range []engine.Query{{Limit: 1}, {Cursor: "x"}, {Order: "sideways"}} {
		var out bytes.Buffer
		_, err := from.Export(ctx, &out, q)
		require.ErrorIs(t, err, storage.ErrInvalidQuery)
		require.Zero(t, out.Len())
	}
}

// An archive that ends too early says so, keeps what came whole, and the rest comes
// with the whole one.
func TestImportOfWhatWasCutShort(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	from, _ := mixedStore(t)
	archive := mustExport(t, from, engine.Query{})
	want := whatIs(t, from)
	whole := bytes.TrimRight(archive, "\x00")
	for _, cut := range []int{0, 1, 511, 512, 700, 2000, 9000, 20_000, 60_000, 100_000, 1 << 20, 3 << 20, len(whole) - 600, len(whole) - 1} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			to, dir := newStore(t, "")
			_, err := to.Import(ctx, bytes.NewReader(archive[:cut]))
			require.ErrorIs(t, err, storage.ErrCorrupted)
			requireSentinel(t, err, dir)
			require.Empty(t, damage(t, to))
			require.Empty(t, stagedFiles(t, to, dir))
			for id, k := range whatIs(t, to) {
				require.Equal(t, want[id].Content, k.Content)
			}
			_, err = to.Import(ctx, bytes.NewReader(archive))
			require.NoError(t, err)
			require.Equal(t, want, whatIs(t, to))
		})
	}
	to, _ := newStore(t, "")
	_, err := to.Import(ctx, bytes.NewReader(archive[:len(whole)-1]))
	require.ErrorContains(t, err, "mediabolt-end.json")
}

// No damage of an archive passes for good: what is imported is as it was.
func TestImportOfDamagedArchives(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	from := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	mustStore(t, from, []byte("a small blob"), storage.MediaMetadata{SessionID: "s", Labels: map[string]string{"k": "v"}})
	mustStore(t, from, []byte("another"), storage.MediaMetadata{})
	archive := mustExport(t, from, engine.Query{})
	want := whatIs(t, from)
	failed := 0
	for at := 0; at < len(bytes.TrimRight(archive, "\x00")); at += 31 {
		damaged := bytes.Clone(archive)
		damaged[at] ^= 4
		dir := t.TempDir()
		to, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone})
		require.NoError(t, err)
		imported, err := to.Import(ctx, bytes.NewReader(damaged))
		got := whatIs(t, to)
		if err == nil {
			require.Len(t, got, len(want), "byte %d", at)
		} else {
			failed++
			requireSentinel(t, err, dir)
		}
		require.EqualValues(t, len(got), imported.References, "byte %d", at)
		for id, k := range got {
			require.Equal(t, want[id].Content, k.Content, "byte %d", at)
			require.Equal(t, want[id].Metadata, k.Metadata, "byte %d", at)
		}
		require.Empty(t, damage(t, to))
		require.NoError(t, to.Close())
	}
	require.NotZero(t, failed)
}

// rewrite is an archive with its sidecars changed.
func rewrite(t testing.TB, archive []byte, change func(blob *storage.BlobRow, refs []storage.RefRow)) []byte {
	t.Helper()
	var out bytes.Buffer
	in, w := tar.NewReader(bytes.NewReader(archive)), tar.NewWriter(&out)
	write := func(header *tar.Header, data []byte) {
		require.NoError(t, w.WriteHeader(header))
		_, err := w.Write(data)
		require.NoError(t, err)
	}
	var heldHeader *tar.Header // of a blob
	var held []byte
	for {
		header, err := in.Next()
		if err == io.EOF {
			require.NoError(t, w.Close())
			return out.Bytes()
		}
		require.NoError(t, err)
		data, err := io.ReadAll(in)
		require.NoError(t, err)
		if path, ok := strings.CutSuffix(header.Name, blobs.MetaSuffix); ok {
			sidecar := blobs.DecodeSidecar(data)
			sidecar.Blob.Path = path
			var refs []storage.RefRow
			for _, l := range sidecar.Lines {
				refs = append(refs, *l.Ref)
			}
			change(&sidecar.Blob, refs)
			data, err = blobs.EncodeSidecar(&sidecar.Blob, refs)
			require.NoError(t, err)
			heldHeader.Name, header.Name = sidecar.Blob.Path, sidecar.Blob.Path+blobs.MetaSuffix
			header.Size = int64(len(data))
			write(heldHeader, held)
		} else if !strings.HasPrefix(header.Name, "mediabolt") {
			heldHeader, held = header, data
			continue
		}
		write(header, data)
	}
}

func TestImportOfOtherContentUnderTheSameID(t *testing.T) {
	ctx := context.Background()
	from := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	ref := mustStore(t, from, small, storage.MediaMetadata{SessionID: "s"})
	archive := mustExport(t, from, engine.Query{})
	want := whatIs(t, from)
	_, err := from.Import(ctx, bytes.NewReader(rewrite(t, archive, func(_ *storage.BlobRow, refs []storage.RefRow) {
		refs[0].Metadata.SessionID = "another"
	})))
	require.ErrorIs(t, err, storage.ErrConflict)
	require.ErrorContains(t, err, ref.ID)
	require.Equal(t, want, whatIs(t, from))

	// The same UUID, of another blob.
	to, _ := newStore(t, "")
	other := mustStore(t, to, shared, storage.MediaMetadata{})
	_, err = to.Import(ctx, bytes.NewReader(rewrite(t, archive, func(_ *storage.BlobRow, refs []storage.RefRow) {
		id, err := storage.ParseID(other.ID)
		require.NoError(t, err)
		refs[0].UUID = id.UUID
	})))
	require.ErrorIs(t, err, storage.ErrConflict)
	require.EqualValues(t, 1, mustStats(t, to).References)
}

// Rows from outside are refused where no store can have them.
func TestImportOfHostileRows(t *testing.T) {
	ctx := context.Background()
	from := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	mustStore(t, from, small, storage.MediaMetadata{SessionID: "s"})
	archive := mustExport(t, from, engine.Query{})
	for name, change := range map[string]func(*storage.BlobRow, []storage.RefRow){
		"no UUID":       func(_ *storage.BlobRow, r []storage.RefRow) { r[0].UUID = storage.UUID{} },
		"other key":     func(b *storage.BlobRow, _ []storage.RefRow) { b.Key = storage.DigestKey(sha256.Sum256(other)) },
		"other digest":  func(b *storage.BlobRow, _ []storage.RefRow) { b.Digest[0]++ },
		"other size":    func(b *storage.BlobRow, _ []storage.RefRow) { b.Size++ },
		"other CRC":     func(b *storage.BlobRow, _ []storage.RefRow) { b.CRC++ },
		"long ID":       func(_ *storage.BlobRow, r []storage.RefRow) { r[0].Metadata.UserID = strings.Repeat("x", 5000) },
		"no MIME":       func(_ *storage.BlobRow, r []storage.RefRow) { r[0].MimeType = "not a type/" },
		"other hash":    func(b *storage.BlobRow, _ []storage.RefRow) { b.Path = "x/000000-06h0aeyy8hrzvc6fkc554h3rs0.bin" },
		"no name":       func(b *storage.BlobRow, _ []storage.RefRow) { b.Path = "x/y" },
		"control chars": func(b *storage.BlobRow, _ []storage.RefRow) { b.MimeType = "a/\x1b" },
	} {
		t.Run(name, func(t *testing.T) {
			to, dir := newStore(t, "")
			_, err := to.Import(ctx, bytes.NewReader(rewrite(t, archive, change)))
			requireSentinel(t, err, dir)
			require.Zero(t, mustStats(t, to).References)
			requireEmpty(t, to, dir)
		})
	}
	for name, entry := range map[string]*tar.Header{
		"link":   {Typeflag: tar.TypeSymlink, Name: "mediabolt.json", Linkname: "/etc/passwd"},
		"others": {Typeflag: tar.TypeReg, Name: "etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			require.NoError(t, w.WriteHeader(entry))
			require.NoError(t, w.Close())
			to, dir := newStore(t, "")
			_, err := to.Import(ctx, &out)
			require.ErrorIs(t, err, storage.ErrCorrupted)
			requireEmpty(t, to, dir)
		})
	}
}

// Damage stays behind, and everything else goes.
func TestExportLeavesOutWhatIsDamaged(t *testing.T) {
	ctx := context.Background()
	for name, harm := range map[string]func(t *testing.T, file string){
		"flipped": func(t *testing.T, file string) { flipByte(t, file) },
		"gone":    func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) },
		"cut":     func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 10)) },
	} {
		for _, data := range [][]byte{small, large} {
			t.Run(fmt.Sprint(name, len(data)), func(t *testing.T) {
				dir := t.TempDir()
				f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone})
				require.NoError(t, err)
				defer func() { require.NoError(t, f.Close()) }()
				good := mustStore(t, f, shared, storage.MediaMetadata{})
				bad := mustStore(t, f, data, storage.MediaMetadata{})
				last := mustStore(t, f, other, storage.MediaMetadata{})
				require.NoError(t, f.Checkpoint(ctx)) // or else it is in staging too
				harm(t, filepath.Join(dir, bad.Metadata["path"]))
				var archive bytes.Buffer
				exported, err := f.Export(ctx, &archive, engine.Query{})
				require.ErrorIs(t, err, storage.ErrCorrupted)
				require.ErrorContains(t, err, bad.Metadata["path"])
				require.Len(t, exported.LeftOut, 1)
				require.EqualValues(t, 2, exported.References)

				to, _ := newStore(t, "")
				imported, err := to.Import(ctx, &archive)
				require.NoError(t, err)
				require.EqualValues(t, 2, imported.References)
				require.Equal(t, shared, mustRetrieve(t, to, good))
				require.Equal(t, other, mustRetrieve(t, to, last))
			})
		}
	}
}

func flipByte(t testing.TB, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

// Beside stores and deletes every archive is whole, and its blobs are those of
// their references.
func TestExportBesideTraffic(t *testing.T) {
	ctx := context.Background()
	from := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	stays := mustStore(t, from, []byte("stays"), storage.MediaMetadata{})
	var done atomic.Bool
	traffic := make(chan error, 1)
	go func() {
		traffic <- func() error {
			for i := 0; !done.Load(); i++ {
				data := fmt.Appendf(nil, "content %d", i%5)
				a, err := storeBytes(from, data, i)
				if err != nil {
					return err
				}
				b, err := storeBytes(from, data, i)
				if err != nil {
					return err
				}
				if err := errors.Join(from.Delete(ctx, a), from.Delete(ctx, b)); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	for range 20 {
		archive := mustExport(t, from, engine.Query{})
		to, _ := newStore(t, "")
		_, err := to.Import(ctx, bytes.NewReader(archive))
		require.NoError(t, err)
		require.Equal(t, []byte("stays"), mustRetrieve(t, to, stays))
	}
	done.Store(true)
	require.NoError(t, <-traffic)
}

// Many imports of one archive at once add it once.
func TestImportByManyAtOnce(t *testing.T) {
	from, _ := mixedStore(t)
	archive := mustExport(t, from, engine.Query{})
	to, dir := newStore(t, "")
	var added atomic.Int64
	atOnce(t, 8, func(int) error {
		imported, err := to.Import(context.Background(), bytes.NewReader(archive))
		added.Add(imported.References)
		return err
	})
	require.EqualValues(t, 10, added.Load())
	require.Equal(t, whatIs(t, from), whatIs(t, to))
	require.Empty(t, stagedFiles(t, to, dir))
}

// An import that a crash has ended at any step is finished by another one.
func TestImportAfterCrashes(t *testing.T) {
	ctx := context.Background()
	from, _ := mixedStore(t)
	archive := mustExport(t, from, engine.Query{})
	want := whatIs(t, from)
	for _, point := range []engine.FaultPoint{engine.FaultStaged, engine.FaultCommitted, engine.FaultPublished} {
		t.Run(string(point), func(t *testing.T) {
			dir := t.TempDir()
			var reached atomic.Int64
			f, err := engine.Open(ctx, engine.WithFaults(engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone},
				func(_ context.Context, p engine.FaultPoint) error {
					if p == point && reached.Add(1) > 2 {
						return errCrash
					}
					return nil
				}))
			require.NoError(t, err)
			_, err = f.Import(ctx, bytes.NewReader(archive))
			require.ErrorIs(t, err, errCrash)
			require.NoError(t, f.Abandon())

			f = mustOpen(t, engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone})
			_, err = f.Import(ctx, bytes.NewReader(archive))
			require.NoError(t, err)
			require.Equal(t, want, whatIs(t, f))
		})
	}
}

// failingWriter takes some bytes.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errCrash
	}
	return len(p), nil
}

func TestExportAndImportEnd(t *testing.T) {
	from, _ := mixedStore(t)
	for _, left := range []int{0, 600, 5000, 1 << 20} {
		_, err := from.Export(context.Background(), &failingWriter{left}, engine.Query{})
		require.ErrorIs(t, err, errCrash)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := from.Export(ended, io.Discard, engine.Query{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = from.Import(ended, strings.NewReader(""))
	require.ErrorIs(t, err, context.Canceled)

	archive := mustExport(t, from, engine.Query{})
	to, dir := newStore(t, "")
	ctx, cancel := context.WithCancel(context.Background())
	_, err = to.Import(ctx, io.MultiReader(bytes.NewReader(archive[:len(archive)/2]), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, errCrash
	})))
	require.Error(t, err)
	require.Empty(t, stagedFiles(t, to, dir))

	require.NoError(t, to.Close())
	_, err = to.Import(context.Background(), bytes.NewReader(archive))
	require.ErrorIs(t, err, storage.ErrClosed)
	_, err = to.Export(context.Background(), io.Discard, engine.Query{})
	require.ErrorIs(t, err, storage.ErrClosed)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
