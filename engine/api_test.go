package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// sentinels are all errors that a store's own errors may wrap.
var sentinels = []error{
	storage.ErrNotFound, storage.ErrPermission, storage.ErrDiskSpace, storage.ErrCorrupted, storage.ErrIO,
	storage.ErrInvalidRef, storage.ErrInvalidMedia, storage.ErrTooLarge, storage.ErrConflict, storage.ErrInvalidConfig,
	storage.ErrLocked, storage.ErrClosed, storage.ErrVersion, storage.ErrNoStore,
}

// requireSentinel requires that a failure says which kind it is, and which
// store it is of.
func requireSentinel(t testing.TB, err error, baseDir string) {
	t.Helper()
	require.Error(t, err)
	require.ErrorContains(t, err, baseDir)
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return
		}
	}
	t.Fatalf("wraps no sentinel of storage: %v", err)
}

// bytesOf is n bytes that look random, the same for the same seed.
func bytesOf(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// treeFiles are the files of a store outside its control directory, relative to
// the base directory, with forward slashes.
func treeFiles(t testing.TB, baseDir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, fs.WalkDir(os.DirFS(baseDir), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".mediabolt":
			return fs.SkipDir
		case !e.IsDir():
			files = append(files, name)
		}
		return nil
	}))
	return files
}

// blobFiles are those of treeFiles that are no sidecars.
func blobFiles(t testing.TB, baseDir string) []string {
	t.Helper()
	var blobs []string
	for _, name := range treeFiles(t, baseDir) {
		if !strings.HasSuffix(name, ".meta") {
			blobs = append(blobs, name)
		}
	}
	return blobs
}

// stagedFiles are the files in staging. A checkpoint before leaves only those
// that something left behind.
func stagedFiles(t testing.TB, f *engine.FileStore, baseDir string) []string {
	t.Helper()
	require.NoError(t, f.Checkpoint(context.Background()))
	files, err := filepath.Glob(filepath.Join(baseDir, ".mediabolt", "staging", "*", "*"))
	require.NoError(t, err)
	return files
}

// mustStats are the totals of a store, without latencies, which are never the
// same.
func mustStats(t testing.TB, f *engine.FileStore) engine.Stats {
	t.Helper()
	stats, err := f.Stats(context.Background())
	require.NoError(t, err)
	stats.Latencies = engine.Latencies{}
	return stats
}

// mustStat is what a store knows of a reference.
func mustStat(t testing.TB, f *engine.FileStore, ref *storage.StorageReference) engine.Entry {
	t.Helper()
	e, err := f.Stat(context.Background(), ref)
	require.NoError(t, err)
	return e
}

// requireEmpty requires that a store has nothing: no reference, no file, no
// directory, nothing staged.
func requireEmpty(t testing.TB, f *engine.FileStore, baseDir string) {
	t.Helper()
	stats := mustStats(t, f)
	require.Zero(t, stats.References, "references")
	require.Zero(t, stats.Blobs, "blobs")
	require.Zero(t, stats.LogicalBytes, "logical bytes")
	require.Zero(t, stats.PhysicalBytes, "physical bytes")
	entries, err := os.ReadDir(baseDir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "only the control directory is left: %v", entries)
	require.Empty(t, stagedFiles(t, f, baseDir))
}

func TestReferenceSaysWhatAndWhere(t *testing.T) {
	data := []byte("the quick brown fox")
	sum := sha256.Sum256(data)
	created := time.Date(2024, 2, 29, 13, 14, 15, 123456789, time.FixedZone("", 3600))
	for _, dedup := range []bool{true, false} {
		t.Run(fmt.Sprintf("dedup=%t", dedup), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: dedup}
			f := mustOpen(t, config)
			ref, err := f.Store(context.Background(),
				&storage.MediaContent{Type: "image", MimeType: "image/png", Data: base64.StdEncoding.EncodeToString(data)},
				storage.MediaMetadata{SessionID: "s1", ConversationID: "c1", CreatedAt: created})
			require.NoError(t, err)
			require.Regexp(t, `^[0-9a-f]{6}-[0-9a-hjkmnp-tv-z]{26}$`, ref.ID)
			require.Equal(t, "file", ref.Backend)
			require.Equal(t, map[string]string{
				"path": "s1/c1/" + ref.ID + ".png", "org": "by-session", "size": "19",
				"sha256": hex.EncodeToString(sum[:]), "type": "image", "mime_type": "image/png",
			}, ref.Metadata)
			require.Equal(t, created.UTC().Truncate(time.Microsecond), ref.CreatedAt)
			if dedup {
				require.Equal(t, hex.EncodeToString(sum[:3]), ref.ID[:6])
			}
			onDisk, err := os.ReadFile(filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"])))
			require.NoError(t, err)
			require.Equal(t, data, onDisk)
		})
	}
}

func TestCreatedAtIsTheTimeOfTheStoreWhereItIsMissing(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	before := time.Now().Truncate(time.Microsecond)
	ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{})
	require.WithinRange(t, ref.CreatedAt, before, time.Now())
	require.Equal(t, time.UTC, ref.CreatedAt.Location())
	require.Zero(t, ref.CreatedAt.Nanosecond()%1000, "to the microsecond")
	require.Equal(t, ref.CreatedAt, mustStat(t, f, ref).Metadata.CreatedAt)
}

// A reference goes through an application's database and comes back; all that
// is trusted then is its ID.
func TestReferencesThatComeBack(t *testing.T) {
	tests := []struct {
		name string
		back func(t *testing.T, ref storage.StorageReference) storage.StorageReference
	}{
		{"as JSON", func(t *testing.T, ref storage.StorageReference) storage.StorageReference {
			text, err := json.Marshal(&ref)
			require.NoError(t, err)
			var back storage.StorageReference
			require.NoError(t, json.Unmarshal(text, &back))
			require.Equal(t, ref, back)
			return back
		}},
		{"as the ID alone", func(_ *testing.T, ref storage.StorageReference) storage.StorageReference {
			return storage.StorageReference{ID: ref.ID}
		}},
		{"with metadata that somebody changed", func(_ *testing.T, ref storage.StorageReference) storage.StorageReference {
			ref.Metadata = map[string]string{
				"path": "../../etc/passwd", "size": "-1", "sha256": strings.Repeat("0", 64), "org": "flat",
				"mime_type": "text/html",
			}
			ref.CreatedAt = time.Unix(0, 0)
			return ref
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
			f := mustOpen(t, config)
			ref := mustStore(t, f, []byte("there and back"), storage.MediaMetadata{SessionID: "s"})
			back := tt.back(t, *ref)
			require.Equal(t, []byte("there and back"), mustRetrieve(t, f, &back))
			require.Equal(t, *ref, mustStat(t, f, &back).Reference)
			require.NoError(t, f.Delete(ctx, &back))
			requireEmpty(t, f, config.BaseDir)
		})
	}
}

func TestTypeAndMimeTypeBelongToTheReference(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	kinds := []storage.MediaInfo{
		{Type: "image", MimeType: "image/png"}, {Type: "document", MimeType: "application/pdf"},
		{Type: "sprite", MimeType: "image/png; charset=binary"},
	}
	var refs []*storage.StorageReference
	for _, kind := range kinds {
		ref, err := f.StoreReader(ctx, strings.NewReader("one blob"), kind, storage.MediaMetadata{})
		require.NoError(t, err)
		require.Equal(t, kind.Type, ref.Metadata["type"])
		require.Equal(t, kind.MimeType, ref.Metadata["mime_type"])
		refs = append(refs, ref)
	}
	require.EqualValues(t, 1, mustStats(t, f).Blobs)
	for i, kind := range kinds {
		got, err := f.Retrieve(ctx, refs[i])
		require.NoError(t, err)
		require.Equal(t, storage.MediaContent{Type: kind.Type, MimeType: kind.MimeType, Data: "b25lIGJsb2I="}, *got)
		blob, err := f.Open(ctx, refs[i])
		require.NoError(t, err)
		require.Equal(t, kind.Type, blob.Type())
		require.Equal(t, kind.MimeType, blob.MimeType())
		require.NoError(t, blob.Close())
		e := mustStat(t, f, refs[i])
		require.Equal(t, kind, storage.MediaInfo{Type: e.Type, MimeType: e.MimeType})
		require.True(t, strings.HasSuffix(e.Path, ".png"), "the first reference names the file: %s", e.Path)
	}
}

// everyCall is one call of each method but Close, by name.
func everyCall(f *engine.FileStore) map[string]func(context.Context) error {
	ref := &storage.StorageReference{ID: "000000-00000000000000000000000000"}
	return map[string]func(context.Context) error{
		"Store": func(ctx context.Context) error {
			_, err := f.Store(ctx, content([]byte("x")), storage.MediaMetadata{})
			return err
		},
		"StoreReader": func(ctx context.Context) error {
			_, err := f.StoreReader(ctx, strings.NewReader("x"), storage.MediaInfo{}, storage.MediaMetadata{})
			return err
		},
		"Retrieve": func(ctx context.Context) error { _, err := f.Retrieve(ctx, ref); return err },
		"Open":     func(ctx context.Context) error { _, err := f.Open(ctx, ref); return err },
		"Delete":   func(ctx context.Context) error { return f.Delete(ctx, ref) },
		"Retain":   func(ctx context.Context) error { _, err := f.Retain(ctx, ref, "retain"); return err },
		"Expire":   func(ctx context.Context) error { _, err := f.Expire(ctx, engine.ExpireOptions{}); return err },
		"Explain":  func(ctx context.Context) error { _, err := f.Explain(ctx, ref); return err },
		"Stat":     func(ctx context.Context) error { _, err := f.Stat(ctx, ref); return err },
		"Stats":    func(ctx context.Context) error { _, err := f.Stats(ctx); return err },
		"List": func(ctx context.Context) error {
			for _, err := range f.List(ctx, engine.Query{}) {
				return err
			}
			return nil
		},
		"Verify": func(ctx context.Context) error {
			for _, err := range f.Verify(ctx, engine.VerifyOptions{}) {
				return err
			}
			return nil
		},
	}
}

func TestBadConfigurations(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name   string
		config engine.FileStoreConfig
		says   string
	}{
		{"no base directory", engine.FileStoreConfig{}, "BaseDir"},
		{"unknown organization", engine.FileStoreConfig{BaseDir: dir, Organization: "by-moon"}, "by-moon"},
		{"organization in another spelling", engine.FileStoreConfig{BaseDir: dir, Organization: "Flat"}, "Flat"},
		{"negative size", engine.FileStoreConfig{BaseDir: dir, MaxFileSize: -1}, "MaxFileSize"},
		{"unknown sync mode", engine.FileStoreConfig{BaseDir: dir, Sync: "sometimes"}, "sometimes"},
		{"files that the owner cannot write", engine.FileStoreConfig{BaseDir: dir, FileMode: 0o400}, "FileMode"},
		{"files with the setuid bit", engine.FileStoreConfig{BaseDir: dir, FileMode: 0o600 | fs.ModeSetuid}, "FileMode"},
		{"directories that the owner cannot enter", engine.FileStoreConfig{BaseDir: dir, DirMode: 0o600}, "DirMode"},
		{"directories with the directory bit", engine.FileStoreConfig{BaseDir: dir, DirMode: 0o700 | fs.ModeDir}, "DirMode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := engine.Open(context.Background(), tt.config)
			require.ErrorIs(t, err, storage.ErrInvalidConfig)
			require.ErrorContains(t, err, tt.says)

			f := engine.NewFileStore(tt.config)
			for range 2 {
				for name, call := range everyCall(f) {
					require.ErrorIs(t, call(context.Background()), storage.ErrInvalidConfig, name)
				}
			}
			require.NoError(t, f.Close(), "there is nothing to close")
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "a refused configuration makes nothing")
}

func TestNewFileStoreTouchesNothingBeforeItsFirstUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	f := engine.NewFileStore(engine.FileStoreConfig{BaseDir: dir})
	require.NoDirExists(t, dir)
	ref := mustStore(t, f, []byte("first use"), storage.MediaMetadata{})
	require.Equal(t, []byte("first use"), mustRetrieve(t, f, ref))
	require.Empty(t, damage(t, f))
	require.NoError(t, f.Close())
}

func TestCallsOfAClosedStore(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store")}
	t.Run("closed after use", func(t *testing.T) {
		f := mustOpen(t, config)
		require.NoError(t, f.Close())
		require.NoError(t, f.Close(), "Close is idempotent")
		for name, call := range everyCall(f) {
			err := call(context.Background())
			require.ErrorIs(t, err, storage.ErrClosed, name)
			require.ErrorIs(t, err, fs.ErrClosed, name)
			require.ErrorContains(t, err, config.BaseDir, name)
		}
	})
	t.Run("closed before the first use", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "never")
		f := engine.NewFileStore(engine.FileStoreConfig{BaseDir: dir})
		require.NoError(t, f.Close())
		require.ErrorIs(t, everyCall(f)["Store"](context.Background()), storage.ErrClosed)
		require.NoDirExists(t, dir)
	})
}

func TestNoCreate(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "store")
	config := engine.FileStoreConfig{BaseDir: dir, NoCreate: true}
	_, err := engine.Open(ctx, config)
	require.ErrorIs(t, err, storage.ErrNoStore)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	require.NoDirExists(t, dir)

	require.NoError(t, os.Mkdir(dir, 0o700))
	_, err = engine.Open(ctx, config)
	require.ErrorIs(t, err, storage.ErrNoStore)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)

	made := config
	made.NoCreate = false
	f := mustOpen(t, made)
	ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{})
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	require.Equal(t, []byte("x"), mustRetrieve(t, f, ref))
}

func TestUnknownFormatVersionIsRefused(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{})
	require.NoError(t, f.Close())

	was := setFormatVersion(t, config.BaseDir, 99)
	_, err = engine.Open(ctx, config)
	require.ErrorIs(t, err, storage.ErrVersion)
	require.NotErrorIs(t, err, storage.ErrCorrupted)
	require.ErrorContains(t, err, "99")
	require.ErrorContains(t, err, config.BaseDir)

	setFormatVersion(t, config.BaseDir, was)
	f = mustOpen(t, config)
	require.Equal(t, []byte("x"), mustRetrieve(t, f, ref), "the refusal changed nothing")
}

// setFormatVersion writes another format version into the index of a closed
// store, and returns the one that was there.
func setFormatVersion(t testing.TB, baseDir string, version uint32) (was uint32) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(baseDir, ".mediabolt", "index.db"), 0o600, &bolt.Options{Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		was = binary.BigEndian.Uint32(meta.Get([]byte("format")))
		return meta.Put([]byte("format"), binary.BigEndian.AppendUint32(nil, version))
	}))
	require.NoError(t, db.Close())
	return was
}

func TestPathsOfEachOrganization(t *testing.T) {
	full := storage.MediaMetadata{RunID: "run-7", SessionID: "session-xyz", ConversationID: "conv-123"}
	tests := []struct {
		mode     storage.OrganizationMode
		metadata storage.MediaMetadata
		dir      string
	}{
		{storage.OrganizationFlat, full, "."},
		{storage.OrganizationFlat, storage.MediaMetadata{}, "."},
		{storage.OrganizationByConversation, full, "conv-123"},
		{storage.OrganizationByConversation, storage.MediaMetadata{SessionID: "s"}, "no-conversation"},
		{storage.OrganizationBySession, full, "session-xyz/conv-123"},
		{storage.OrganizationBySession, storage.MediaMetadata{SessionID: "s"}, "s/no-conversation"},
		{storage.OrganizationBySession, storage.MediaMetadata{ConversationID: "c"}, "no-session/c"},
		{storage.OrganizationBySession, storage.MediaMetadata{}, "no-session/no-conversation"},
		{"", full, "session-xyz/conv-123"},
		{storage.OrganizationByRun, full, "run-7/session-xyz/conv-123"},
		{storage.OrganizationByRun, storage.MediaMetadata{RunID: "r"}, "r/no-session/no-conversation"},
		{storage.OrganizationByRun, storage.MediaMetadata{}, "no-run/no-session/no-conversation"},
	}
	for _, tt := range tests {
		t.Run(string(tt.mode)+" "+tt.dir, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), Organization: tt.mode, Sync: engine.SyncNone}
			f := mustOpen(t, config)
			ref := mustStore(t, f, []byte("x"), tt.metadata)
			require.Equal(t, path.Join(tt.dir, ref.ID+".bin"), ref.Metadata["path"])
			require.NoError(t, f.WriteSidecars(t.Context()))
			require.Equal(t, []string{ref.Metadata["path"], ref.Metadata["path"] + ".meta"}, treeFiles(t, config.BaseDir))
			require.NoError(t, f.Delete(context.Background(), ref))
			requireEmpty(t, f, config.BaseDir)
		})
	}
}

func TestOrganizationChangedAtReopeningAppliesToNewFiles(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	m := storage.MediaMetadata{RunID: "r", SessionID: "s", ConversationID: "c"}
	var refs []*storage.StorageReference
	for _, mode := range storage.OrganizationModes() {
		config.Organization = mode
		f := mustOpen(t, config)
		ref := mustStore(t, f, []byte(mode), m)
		require.Equal(t, string(mode), ref.Metadata["org"])
		refs = append(refs, ref)
		again := mustStore(t, f, []byte(storage.OrganizationFlat), m)
		require.Equal(t, refs[0].Metadata["path"], again.Metadata["path"], "bytes that are there stay where they are")
		require.Equal(t, "flat", again.Metadata["org"])
		require.NoError(t, f.Delete(ctx, again))
		for i, ref := range refs {
			require.Equal(t, []byte(storage.OrganizationModes()[i]), mustRetrieve(t, f, ref))
		}
		require.NoError(t, f.Close())
	}
	f := mustOpen(t, config)
	for _, ref := range refs {
		require.NoError(t, f.Delete(ctx, ref))
	}
	requireEmpty(t, f, config.BaseDir)
}

func TestStats(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	a := mustStore(t, f, bytesOf(1000, 1), storage.MediaMetadata{})
	b := mustStore(t, f, bytesOf(1000, 1), storage.MediaMetadata{})
	mustStore(t, f, bytesOf(300, 2), storage.MediaMetadata{})
	mustStore(t, f, nil, storage.MediaMetadata{})
	want := engine.Stats{References: 4, Blobs: 3, LogicalBytes: 2300, PhysicalBytes: 1300, SavedBytes: 1000}
	require.Equal(t, want, withoutIndexBytes(t, f))

	require.NoError(t, f.Delete(ctx, a))
	want = engine.Stats{References: 3, Blobs: 3, LogicalBytes: 1300, PhysicalBytes: 1300}
	require.Equal(t, want, withoutIndexBytes(t, f))
	require.NoError(t, f.Close())
	f = mustOpen(t, config)
	require.Equal(t, want, withoutIndexBytes(t, f), "totals outlive a restart")

	require.NoError(t, os.Remove(filepath.Join(config.BaseDir, filepath.FromSlash(b.Metadata["path"]))))
	mustStore(t, f, bytesOf(1000, 1), storage.MediaMetadata{})
	want = engine.Stats{References: 4, Blobs: 3, LogicalBytes: 2300, PhysicalBytes: 1300, SavedBytes: 1000, Healed: 1}
	require.Equal(t, want, withoutIndexBytes(t, f))
}

// withoutIndexBytes are the totals, without the one that depends on bbolt.
func withoutIndexBytes(t testing.TB, f *engine.FileStore) engine.Stats {
	t.Helper()
	stats := mustStats(t, f)
	require.Positive(t, stats.IndexBytes)
	stats.IndexBytes = 0
	return stats
}

func TestListFiltersByEachID(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	stored := []storage.MediaMetadata{
		{ConversationID: "c1", SessionID: "s1", RunID: "r1", UserID: "u1", MessageIndex: 3, ContentIndex: 1},
		{ConversationID: "c1", SessionID: "s2", RunID: "r1", UserID: "u2", Labels: map[string]string{"model": "m-1"}},
		{ConversationID: "c2", SessionID: "s1", RunID: "r2", UserID: "u1"},
		{ConversationID: "c1\x00", SessionID: "s1"},
		{},
	}
	var refs []*storage.StorageReference
	for i, m := range stored {
		refs = append(refs, mustStore(t, f, []byte{byte(i % 3)}, m))
	}
	tests := []struct {
		name  string
		query engine.Query
		want  []int
	}{
		{"everything", engine.Query{}, []int{0, 1, 2, 3, 4}},
		{"conversation", engine.Query{ConversationID: "c1"}, []int{0, 1}},
		{"session", engine.Query{SessionID: "s1"}, []int{0, 2, 3}},
		{"run", engine.Query{RunID: "r1"}, []int{0, 1}},
		{"user", engine.Query{UserID: "u1"}, []int{0, 2}},
		{"several", engine.Query{SessionID: "s1", UserID: "u1", RunID: "r2"}, []int{2}},
		{"ID that ends in NUL", engine.Query{ConversationID: "c1\x00"}, []int{3}},
		{"none of both", engine.Query{ConversationID: "c2", SessionID: "s2"}, nil},
		{"prefix of an ID", engine.Query{SessionID: "s"}, nil},
		{"ID longer than any", engine.Query{UserID: strings.Repeat("u", 100_000)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			for e, err := range f.List(ctx, tt.query) {
				require.NoError(t, err)
				i := len(got)
				require.Less(t, i, len(tt.want), "beyond what was asked for: %+v", e)
				ref, m := refs[tt.want[i]], stored[tt.want[i]]
				m.CreatedAt = ref.CreatedAt
				require.Equal(t, ref.ID, e.Reference.ID)
				require.Equal(t, m, e.Metadata)
				require.Equal(t, mustStat(t, f, ref), e, "List and Stat agree")
				got = append(got, tt.want[i])
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestListGoesOnWhileTheCallerDeletes(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	const n = 600 // more than two of the pages that are read at a time
	for i := range n {
		mustStore(t, f, []byte{byte(i)}, storage.MediaMetadata{SessionID: "s" + strconv.Itoa(i%2)})
	}
	seen := 0
	for e, err := range f.List(ctx, engine.Query{SessionID: "s1"}) {
		require.NoError(t, err)
		require.NoError(t, f.Delete(ctx, &e.Reference))
		seen++
	}
	require.Equal(t, n/2, seen)
	for range f.List(ctx, engine.Query{}) {
		seen++
		break // a caller may stop at once
	}
	require.Equal(t, n/2+1, seen)
	require.EqualValues(t, n/2, mustStats(t, f).References)
}

func TestStatTellsOfTheBlob(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	before := time.Now().Truncate(time.Microsecond)
	data := bytesOf(4321, 1)
	a := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s1", CreatedAt: time.Unix(1700000000, 0)})
	b := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s2"})
	e := mustStat(t, f, b)
	require.Equal(t, *b, e.Reference)
	require.Equal(t, a.Metadata["path"], e.Path)
	require.EqualValues(t, len(data), e.Size)
	require.Equal(t, storage.Digest(sha256.Sum256(data)), e.Digest)
	require.EqualValues(t, 2, e.Refs)
	require.Equal(t, "s2", e.Metadata.SessionID)
	require.WithinRange(t, e.StoredAt, before, time.Now())
	require.True(t, e.AccessedAt.IsZero(), "not read yet")
	require.Equal(t, e.StoredAt, mustStat(t, f, a).StoredAt, "whatever time the application gave its reference")
}

func TestLastAccessIsCoarseAndOutlivesClose(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	reads := map[string]func(*engine.FileStore, *storage.StorageReference) error{
		"Retrieve": func(f *engine.FileStore, ref *storage.StorageReference) error {
			_, err := f.Retrieve(ctx, ref)
			return err
		},
		"Open": func(f *engine.FileStore, ref *storage.StorageReference) error {
			blob, err := f.Open(ctx, ref)
			if err != nil {
				return err
			}
			return blob.Close()
		},
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			f := mustOpen(t, config)
			ref := mustStore(t, f, []byte(name), storage.MediaMetadata{})
			require.True(t, mustStat(t, f, ref).AccessedAt.IsZero())
			before := time.Now().Truncate(time.Microsecond)
			require.NoError(t, read(f, ref))
			after := time.Now()
			require.NoError(t, f.Close())

			f = mustOpen(t, config)
			first := mustStat(t, f, ref).AccessedAt
			require.WithinRange(t, first, before, after)
			require.NoError(t, read(f, ref))
			require.NoError(t, f.Close())

			f = mustOpen(t, config)
			require.Equal(t, first, mustStat(t, f, ref).AccessedAt, "another read within the hour changes nothing")
			require.NoError(t, f.Close())
		})
	}
}

func TestMaxFileSize(t *testing.T) {
	const limit = 2 << 20
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), MaxFileSize: limit, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	outside := t.TempDir()
	ways := map[string]func(data []byte) (*storage.StorageReference, error){
		"Data": func(data []byte) (*storage.StorageReference, error) {
			return f.Store(ctx, content(data), storage.MediaMetadata{})
		},
		"FilePath": func(data []byte) (*storage.StorageReference, error) {
			name := filepath.Join(outside, "content")
			require.NoError(t, os.WriteFile(name, data, 0o600))
			return f.Store(ctx, &storage.MediaContent{FilePath: name}, storage.MediaMetadata{})
		},
		"StoreReader": func(data []byte) (*storage.StorageReference, error) {
			return f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
		},
		"StoreReader without an end": func(data []byte) (*storage.StorageReference, error) {
			if len(data) > limit {
				return f.StoreReader(ctx, endless{}, storage.MediaInfo{}, storage.MediaMetadata{})
			}
			return f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
		},
	}
	for name, store := range ways {
		t.Run(name, func(t *testing.T) {
			_, err := store(bytesOf(limit+1, 1))
			require.ErrorIs(t, err, storage.ErrTooLarge)
			require.ErrorContains(t, err, strconv.Itoa(limit))
			require.ErrorContains(t, err, config.BaseDir)
			requireEmpty(t, f, config.BaseDir)

			data := bytesOf(limit, 2)
			ref, err := store(data)
			require.NoError(t, err, "the limit itself is allowed")
			require.True(t, bytes.Equal(data, mustRetrieve(t, f, ref)))
			require.NoError(t, f.Delete(ctx, ref))
			requireEmpty(t, f, config.BaseDir)
		})
	}
}

// endless is a stream of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The limit is on the bytes, however many characters they came in.
func TestMaxFileSizeCountsBytesNotCharacters(t *testing.T) {
	const limit = 10_000
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), MaxFileSize: limit, Sync: engine.SyncNone})
	encoded := base64.StdEncoding.EncodeToString(bytesOf(limit, 3))
	var lines strings.Builder
	for line := range strings.SplitSeq(encoded, "") {
		lines.WriteString(line)
		if lines.Len()%78 == 76 {
			lines.WriteString("\r\n")
		}
	}
	for name, data := range map[string]string{
		"base64":                 encoded,
		"base64 in lines":        lines.String(),
		"percent-encoded base64": "data:image/png;base64," + strings.ReplaceAll(encoded, "/", "%2F"),
		"percent-encoded bytes":  "data:text/plain," + strings.Repeat("%20", limit),
	} {
		t.Run(name, func(t *testing.T) {
			ref, err := f.Store(context.Background(), &storage.MediaContent{Data: data}, storage.MediaMetadata{})
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(limit), ref.Metadata["size"])
		})
	}
}

// cancelAtLook is a context that ends at the nth look that is taken at it.
type cancelAtLook struct {
	context.Context
	cancel context.CancelFunc
	looks  atomic.Int64 // how many are left
}

func newCancelAtLook(n int) *cancelAtLook {
	c := &cancelAtLook{}
	c.Context, c.cancel = context.WithCancel(context.Background())
	c.looks.Store(int64(n))
	return c
}

func (c *cancelAtLook) look() {
	if c.looks.Add(-1) == 0 {
		c.cancel()
	}
}

func (c *cancelAtLook) Err() error            { c.look(); return c.Context.Err() }
func (c *cancelAtLook) Done() <-chan struct{} { c.look(); return c.Context.Done() }

// cancelEverywhere runs op with a context that ends at the first look at it,
// then at the second, and so on, until op is through before it ends. after is
// told how each run came out.
func cancelEverywhere(t *testing.T, op func(context.Context) error, after func(err error)) {
	t.Helper()
	for n := 1; ; n++ {
		require.Less(t, n, 10_000, "op has no end")
		ctx := newCancelAtLook(n)
		err := op(ctx)
		through := ctx.looks.Load() > 0
		ctx.cancel()
		if err != nil {
			require.False(t, through, "look %d: an error without a cancellation: %v", n, err)
			require.ErrorIs(t, err, context.Canceled, "look %d", n)
		}
		if n == 1 {
			require.Error(t, err, "a context that has ended before is heeded")
		}
		after(err)
		if through {
			return
		}
	}
}

func TestCancelledStoreLeavesNothing(t *testing.T) {
	bg := context.Background()
	small, large := bytesOf(5000, 1), bytesOf(1<<20+5000, 2)
	tests := []struct {
		name  string
		data  []byte
		there string // of the same bytes, before: "", "whole", "missing" or "short"
	}{
		{"new", small, ""},
		{"new, spooled", large, ""},
		{"duplicate", small, "whole"},
		{"duplicate, spooled", large, "whole"},
		{"of bytes whose file is missing", small, "missing"},
		{"of bytes whose file is missing, spooled", large, "missing"},
		{"of bytes whose file is short", small, "short"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
			f := mustOpen(t, config)
			harm := func() {}
			if tt.there != "" {
				ref := mustStore(t, f, tt.data, storage.MediaMetadata{})
				name := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
				switch tt.there {
				case "missing":
					harm = func() { require.NoError(t, os.Remove(name)) }
				case "short":
					harm = func() { require.NoError(t, os.Truncate(name, 10)) }
				}
			}
			require.Empty(t, stagedFiles(t, f, config.BaseDir))
			before := mustStats(t, f)
			harm()
			files := treeFiles(t, config.BaseDir)

			var ref *storage.StorageReference
			cancelEverywhere(t, func(ctx context.Context) (err error) {
				ref, err = f.StoreReader(ctx, bytes.NewReader(tt.data), storage.MediaInfo{}, storage.MediaMetadata{SessionID: "new"})
				return err
			}, func(err error) {
				if err == nil {
					require.True(t, bytes.Equal(tt.data, mustRetrieve(t, f, ref)))
					require.NoError(t, f.Delete(bg, ref))
					if tt.there != "" {
						require.Empty(t, stagedFiles(t, f, config.BaseDir))
						harm()
					}
				}
				require.Equal(t, files, treeFiles(t, config.BaseDir))
				require.Empty(t, stagedFiles(t, f, config.BaseDir), "staging")
				stats := mustStats(t, f)
				stats.IndexBytes, stats.Healed = before.IndexBytes, before.Healed
				require.Equal(t, before, stats)
			})
			_, err := f.StoreReader(bg, bytes.NewReader(tt.data), storage.MediaInfo{}, storage.MediaMetadata{})
			require.NoError(t, err, "heals for the verification at the end")
		})
	}
}

func TestCancelledDeleteIsAllOrNothing(t *testing.T) {
	bg := context.Background()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%t", shared), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
			f := mustOpen(t, config)
			others := int64(0)
			if shared {
				mustStore(t, f, []byte("x"), storage.MediaMetadata{})
				others = 1
			}
			ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{})
			cancelEverywhere(t, func(ctx context.Context) error { return f.Delete(ctx, ref) }, func(err error) {
				if err != nil {
					require.EqualValues(t, others+1, mustStat(t, f, ref).Refs)
					require.Equal(t, []byte("x"), mustRetrieve(t, f, ref))
					return
				}
				_, err = f.Stat(bg, ref)
				require.ErrorIs(t, err, storage.ErrNotFound)
				require.Equal(t, others, mustStats(t, f).References)
				require.Len(t, blobFiles(t, config.BaseDir), int(others))
				ref = mustStore(t, f, []byte("x"), storage.MediaMetadata{})
			})
		})
	}
}

func TestReadsHeedTheirContext(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	data := bytesOf(100_000, 1)
	ref := mustStore(t, f, data, storage.MediaMetadata{})
	for name, op := range map[string]func(context.Context) error{
		"Retrieve": func(ctx context.Context) error { _, err := f.Retrieve(ctx, ref); return err },
		"Open": func(ctx context.Context) error {
			blob, err := f.Open(ctx, ref)
			if err != nil {
				return err
			}
			return blob.Close()
		},
		"Stat":  func(ctx context.Context) error { _, err := f.Stat(ctx, ref); return err },
		"Stats": func(ctx context.Context) error { _, err := f.Stats(ctx); return err },
		"List": func(ctx context.Context) error {
			for _, err := range f.List(ctx, engine.Query{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"Verify": func(ctx context.Context) error {
			for _, err := range f.Verify(ctx, engine.VerifyOptions{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			cancelEverywhere(t, op, func(error) { require.True(t, bytes.Equal(data, mustRetrieve(t, f, ref))) })
		})
	}
}

func TestCancelledOpeningLeavesAStoreThatOpens(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store"), Sync: engine.SyncNone}
	cancelEverywhere(t, func(ctx context.Context) error {
		f, err := engine.Open(ctx, config)
		if err == nil {
			require.NoError(t, f.Close())
		}
		return err
	}, func(error) {
		f, err := engine.Open(context.Background(), config)
		require.NoError(t, err)
		require.Empty(t, damage(t, f))
		mustStore(t, f, []byte("something to recover"), storage.MediaMetadata{})
		require.NoError(t, f.Abandon())
	})
}

// stalling is a stream that gives its data, says so, and then waits.
type stalling struct {
	data    io.Reader
	then    func() (int, error) // what it answers after the wait
	stalled chan struct{}       // closed once it waits
	release chan struct{}       // closed to let it go on
}

func newStalling(data []byte, then func() (int, error)) *stalling {
	return &stalling{data: bytes.NewReader(data), then: then, stalled: make(chan struct{}), release: make(chan struct{})}
}

func (s *stalling) Read(p []byte) (int, error) {
	if n, err := s.data.Read(p); err == nil {
		return n, nil
	}
	select {
	case <-s.stalled:
	default:
		close(s.stalled)
	}
	<-s.release
	return s.then()
}

func TestStoreReaderCancelledWhileItsStreamBlocks(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	f := mustOpen(t, config)
	for _, size := range []int{0, 1000, 1 << 20, 1<<20 + 1, 3 << 20} {
		for name, then := range map[string]func() (int, error){
			"ends":     func() (int, error) { return 0, io.EOF },
			"goes on":  func() (int, error) { return 1, nil },
			"gives up": func() (int, error) { return 0, fmt.Errorf("connection: %w", context.Canceled) },
			"is slow":  func() (int, error) { return 0, nil },
		} {
			t.Run(fmt.Sprintf("size=%d then it %s", size, name), func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				stream := newStalling(bytesOf(size, 1), then)
				result := make(chan error, 1)
				go func() {
					_, err := f.StoreReader(ctx, stream, storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s"})
					result <- err
				}()
				<-stream.stalled
				cancel()
				close(stream.release)
				err := <-result
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorContains(t, err, config.BaseDir)
				requireEmpty(t, f, config.BaseDir)
			})
		}
	}
}

func TestPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	tests := []struct {
		name      string
		file, dir fs.FileMode
		wantFile  fs.FileMode
		wantDir   fs.FileMode
	}{
		{"private by default", 0, 0, 0o600, 0o700},
		{"open to a group", 0o640, 0o750, 0o640, 0o750},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := engine.FileStoreConfig{
				BaseDir: filepath.Join(t.TempDir(), "above", "store"), FileMode: tt.file, DirMode: tt.dir, EnableDeduplication: true,
			}
			f := mustOpen(t, config)
			mustStore(t, f, []byte("x"), storage.MediaMetadata{SessionID: "s"})
			_, err := f.StoreReader(context.Background(), bytes.NewReader(bytesOf(2<<20, 1)), storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s"})
			require.NoError(t, err)
			seen := 0
			require.NoError(t, filepath.WalkDir(filepath.Dir(config.BaseDir), func(name string, e fs.DirEntry, err error) error {
				require.NoError(t, err)
				info, err := e.Info()
				require.NoError(t, err)
				seen++
				if e.IsDir() {
					require.Equal(t, tt.wantDir, info.Mode().Perm(), name)
				} else {
					require.Equal(t, tt.wantFile, info.Mode().Perm(), name)
				}
				return nil
			}))
			require.Greater(t, seen, 15)
		})
	}
}

func TestStoreThatWasMovedOpens(t *testing.T) {
	dir := t.TempDir()
	before := engine.FileStoreConfig{BaseDir: filepath.Join(dir, "before"), EnableDeduplication: true}
	f, err := engine.Open(context.Background(), before)
	require.NoError(t, err)
	ref := mustStore(t, f, []byte("on the move"), storage.MediaMetadata{SessionID: "s"})
	require.NoError(t, f.Abandon(), "as a crash leaves it, with work to finish")

	after := before
	after.BaseDir = filepath.Join(dir, "some", "where", "else")
	require.NoError(t, os.MkdirAll(filepath.Dir(after.BaseDir), 0o700))
	require.NoError(t, os.Rename(before.BaseDir, after.BaseDir))
	f = mustOpen(t, after)
	require.Equal(t, []byte("on the move"), mustRetrieve(t, f, ref))
	again := mustStore(t, f, []byte("on the move"), storage.MediaMetadata{SessionID: "t"})
	require.Equal(t, ref.Metadata["path"], again.Metadata["path"])
	require.NoDirExists(t, before.BaseDir)
}
