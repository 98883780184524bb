package engine_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// goldenDir has a store of every format there has been, as it was left by a killed
// process of that time: <format>.tar.gz, and in <format>.json what it holds. They are
// never made again. When the format has changed, a new one is added by
//
//	go test ./engine -run TestGoldenStores -make-golden
const goldenDir = "testdata/golden"

var makeGolden = flag.Bool("make-golden", false, "add a store of the present format to "+goldenDir+", if there is none")

// goldenEntry is a reference of a golden store. Fields that were added later are left
// out where they are as in a store that does not have them.
type goldenEntry struct {
	ID        string
	Type      string
	MimeType  string
	Metadata  storage.MediaMetadata
	Path      string
	Mode      string
	Size      int64
	SHA256    string
	Refs      int64
	StoredAt  time.Time
	Text      string    // the bytes
	Count     int64     `json:",omitempty"` // where it is more than 1
	ExpiresAt time.Time `json:",omitzero"`
}

func goldenEntries(t testing.TB, f *engine.FileStore) (all []goldenEntry) {
	t.Helper()
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		g := goldenEntry{
			ID: e.Reference.ID, Type: e.Type, MimeType: e.MimeType, Metadata: e.Metadata, Path: e.Path, Mode: e.Reference.Metadata["org"],
			Size: e.Size, SHA256: e.Digest.String(), Refs: e.Refs, StoredAt: e.StoredAt, ExpiresAt: e.ExpiresAt,
			Text: string(mustRetrieve(t, f, &e.Reference)),
		}
		if e.Count > 1 {
			g.Count = e.Count
		}
		all = append(all, g)
	}
	return all
}

// useGolden uses every mode, with deduplication and without, and leaves sidecars with
// tombstones. What later formats can do more is in useGoldenLast.
func useGolden(t testing.TB, dir string) {
	t.Helper()
	for i, mode := range storage.OrganizationModes() {
		for _, dedup := range []bool{false, true} {
			config := engine.FileStoreConfig{BaseDir: dir, Organization: mode, EnableDeduplication: dedup}
			setup(t, config, func(f *engine.FileStore) {
				text := func(s string) []byte { return []byte(fmt.Sprintf("golden %s in %s, %v", s, mode, dedup)) }
				m := storage.MediaMetadata{
					ConversationID: "conversation/1", SessionID: "session " + strconv.Itoa(i), RunID: "run", UserID: "user",
					MessageIndex: i, ContentIndex: 2, CreatedAt: time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC),
					Labels: map[string]string{"file_name": "ä.txt", "empty": ""},
				}
				mustStore(t, f, text("a blob"), m)
				mustStore(t, f, text("of several"), m)
				ended := mustStore(t, f, text("of several"), storage.MediaMetadata{SessionID: "ended"})
				mustStore(t, f, text("of several"), storage.MediaMetadata{})
				gone := mustStore(t, f, text("gone"), m)
				require.NoError(t, f.Checkpoint(t.Context()))
				require.NoError(t, f.Delete(t.Context(), ended))
				require.NoError(t, f.Delete(t.Context(), gone))
			})
		}
	}
}

// leaveKilled goes on with a store and keeps what a kill would leave of it: rows in
// the log alone, lines and removals that are owed, names in staging.
func leaveKilled(t testing.TB, dir, killed string) {
	t.Helper()
	f, err := engine.Open(t.Context(), engine.WithFaults(engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true},
		func(_ context.Context, p engine.FaultPoint) error {
			if p == engine.FaultSettled {
				return errCrash
			}
			return nil
		}))
	require.NoError(t, err)
	useGoldenLast(t, f)
	for e, err := range f.List(t.Context(), engine.Query{SessionID: "session 1", Limit: 2}) {
		require.NoError(t, err)
		require.NoError(t, f.Delete(t.Context(), &e.Reference))
	}
	mustStore(t, f, []byte("golden, in the log"), storage.MediaMetadata{SessionID: "last", UserID: "user"})
	ended := mustStore(t, f, []byte("golden, in the log"), storage.MediaMetadata{UserID: "last"})
	mustStore(t, f, []byte("golden, in the log"), storage.MediaMetadata{Labels: map[string]string{"n": "3"}})
	require.NoError(t, f.Delete(t.Context(), ended))
	require.NoError(t, copyTree(dir, killed))
	require.NoError(t, f.Abandon())
}

func addGolden(t *testing.T) {
	dir, killed := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "killed")
	useGolden(t, dir)
	leaveKilled(t, dir, killed)
	name := filepath.Join(goldenDir, strconv.Itoa(int(formatOf(t, killed))))
	require.NoError(t, os.MkdirAll(goldenDir, 0o755))
	out, err := os.OpenFile(name+".tar.gz", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	require.NoError(t, err, "there is a store of this format, and it stays")
	require.NoError(t, errors.Join(archive(out, killed), out.Close()))
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: killed})
	list, err := json.MarshalIndent(goldenEntries(t, f), "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name+".json", append(list, '\n'), 0o644))
}

// formatOf is the format of a store that is not open.
func formatOf(t testing.TB, baseDir string) (format uint32) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(baseDir, ".mediabolt", "index.db"), 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		format = binary.BigEndian.Uint32(tx.Bucket([]byte("meta")).Get([]byte("format")))
		return nil
	}))
	require.NoError(t, db.Close())
	return format
}

// archive writes a store as tar, without its reserve, which is made anew.
func archive(w io.Writer, dir string) error {
	zip, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	out := tar.NewWriter(zip)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." || name == ".mediabolt/reserve" {
			return err
		}
		if e.IsDir() {
			return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700})
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))})
		if err == nil {
			_, err = out.Write(data)
		}
		return err
	})
	return errors.Join(err, out.Close(), zip.Close())
}

func unpack(t testing.TB, name, dir string) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	zip, err := gzip.NewReader(f)
	require.NoError(t, err)
	in := tar.NewReader(zip)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			require.NoError(t, os.MkdirAll(to, 0o700))
			continue
		}
		data, err := io.ReadAll(in)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, data, 0o600))
	}
}

// TestGoldenStores opens a copy of a store of every format there has been, and
// compares what it holds: as it was left, and after its index was lost.
func TestGoldenStores(t *testing.T) {
	if *makeGolden {
		addGolden(t)
	}
	found, err := filepath.Glob(filepath.Join(goldenDir, "*.tar.gz"))
	require.NoError(t, err)
	require.NotEmpty(t, found)
	for _, name := range found {
		format := filepath.Base(name[:len(name)-len(".tar.gz")])
		data, err := os.ReadFile(filepath.Join(goldenDir, format+".json"))
		require.NoError(t, err)
		var want []goldenEntry
		require.NoError(t, json.Unmarshal(data, &want))
		require.Greater(t, len(want), 20)
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("format=%s/lost=%v", format, lost), func(t *testing.T) {
				config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
				unpack(t, name, config.BaseDir)
				require.Equal(t, format, strconv.Itoa(int(formatOf(t, config.BaseDir))))
				if lost {
					require.NoError(t, os.Remove(filepath.Join(config.BaseDir, ".mediabolt", "index.db")))
					require.Zero(t, mustRebuild(t, config).Adopted)
				}
				for range 2 {
					f, err := engine.Open(t.Context(), config)
					require.NoError(t, err)
					require.Equal(t, want, goldenEntries(t, f))
					require.Empty(t, damage(t, f))
					require.NoError(t, f.Close())
				}
				rows := rowsOf(t, config)
				mustRebuild(t, config)
				require.Equal(t, rows, rowsOf(t, config))
			})
		}
	}
}

// TestMigrationRefusesDamage has bits flipped all over an index of format 3: it is not
// brought up to date, and not copied, or the bit is of no page in use.
func TestMigrationRefusesDamage(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(goldenDir, "3.json"))
	require.NoError(t, err)
	var want []goldenEntry
	require.NoError(t, json.Unmarshal(data, &want))
	refused := 0
	for page := int64(2); page < 24; page++ {
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
		unpack(t, filepath.Join(goldenDir, "3.tar.gz"), config.BaseDir)
		ctl := filepath.Join(config.BaseDir, ".mediabolt")
		require.NoError(t, flipBit(filepath.Join(ctl, "index.db"), page*4096+100))
		f, err := engine.Open(t.Context(), config)
		if err != nil {
			refused++
			require.ErrorIs(t, err, storage.ErrCorrupted)
			require.ErrorContains(t, err, "mediabolt rebuild")
			require.NoFileExists(t, filepath.Join(ctl, "index.db.format-3"))
			config.RebuildIndex = true
			f, err = engine.Open(t.Context(), config)
			require.NoError(t, err)
		}
		require.Equal(t, want, goldenEntries(t, f))
		require.NoError(t, f.Close())
	}
	require.Greater(t, refused, 2)
}
