package adopt_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

// write writes a file below dir, and its directories.
func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func hexOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func writeJSON(t testing.TB, dir, name string, v any) {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	require.NoError(t, err)
	write(t, dir, name, data)
}

// kit is a store as PromptKit's local file store writes it: base is how it was
// configured, dir where it is.
type kit struct {
	t         testing.TB
	dir, base string
	index     map[string]string // nil: no deduplication
}

func newKit(t testing.TB, dedup bool) *kit {
	k := &kit{t: t, dir: t.TempDir()}
	k.base = k.dir
	if dedup {
		k.index = map[string]string{}
	}
	return k
}

// put writes media with its .meta, and answers the reference that PromptKit would.
func (k *kit) put(kind, id, name string, data []byte, meta map[string]any) (reference string) {
	k.t.Helper()
	rel := filepath.Join(kind, id, name)
	write(k.t, k.dir, rel, data)
	if meta != nil {
		writeJSON(k.t, k.dir, rel+".meta", meta)
	}
	reference = filepath.Join(k.base, rel)
	if k.index != nil {
		k.index[hexOf(data)] = reference
		writeJSON(k.t, k.dir, ".dedup_index.json", k.index)
	}
	return reference
}

// dedupPut is put under the name that deduplication gives.
func (k *kit) dedupPut(session, ext string, data []byte, meta map[string]any) string {
	k.t.Helper()
	return k.put("sessions", session, hexOf(data)+ext, data, meta)
}

func kitMeta(session string) map[string]any {
	return map[string]any{
		"run_id": "r1", "conversation_id": "c1", "session_id": session, "message_idx": 3, "part_idx": 1,
		"mime_type": "image/png", "size_bytes": 0, "provider_id": "openai", "timestamp": "2026-03-01T12:30:00.5Z", "policy_name": "retain-30days",
	}
}

// jsonStore is a store of the format json.
type jsonStore struct {
	t     testing.TB
	dir   string
	index map[string]map[string]any
}

func newJSONStore(t testing.TB) *jsonStore {
	return &jsonStore{t: t, dir: t.TempDir(), index: map[string]map[string]any{}}
}

func (j *jsonStore) put(name string, data []byte, refs int) map[string]any {
	j.t.Helper()
	write(j.t, j.dir, name, data)
	entry := map[string]any{
		"hash": hexOf(data), "path": name, "size": len(data), "mime_type": "image/png", "ref_count": refs,
		"created_at": "2026-03-01T12:30:00Z", "last_accessed": "2026-03-02T08:00:00Z",
	}
	j.index["sha256:"+hexOf(data)] = entry
	j.save()
	return entry
}

func (j *jsonStore) save() { writeJSON(j.t, j.dir, ".dedup-index.json", j.index) }

// png is bytes that look like a PNG image, different for each seed.
func png(seed string) []byte {
	return append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), seed...)
}

// mustOpen opens a store, and verifies it at the end of the test.
func mustOpen(t testing.TB, dir string) *engine.FileStore {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
			if errors.Is(err, storage.ErrClosed) {
				break
			}
			require.NoError(t, err)
			require.Failf(t, "verify", "%+v", finding)
		}
		require.NoError(t, f.Close())
	})
	return f
}

// adoptAll runs an adoption, and answers its items by path and their count.
func adoptAll(t testing.TB, f *engine.FileStore, o adopt.Options) (map[string]adopt.Item, adopt.Report) {
	t.Helper()
	items := map[string]adopt.Item{}
	var r adopt.Report
	for item, err := range adopt.Adopt(context.Background(), f, o) {
		require.NoError(t, err)
		_, twice := items[item.Path]
		require.False(t, twice && item.Path != ".dedup_index.json", "%s is reported twice", item.Path)
		items[item.Path] = item
		r.Add(&item)
	}
	return items, r
}

func entries(t testing.TB, f *engine.FileStore) []engine.Entry {
	t.Helper()
	var all []engine.Entry
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func mustStat(t testing.TB, f *engine.FileStore, id string) engine.Entry {
	t.Helper()
	e, err := f.Stat(context.Background(), &storage.StorageReference{ID: id})
	require.NoError(t, err)
	return e
}

func mustRead(t testing.TB, f *engine.FileStore, id string) []byte {
	t.Helper()
	b, err := f.Open(context.Background(), &storage.StorageReference{ID: id})
	require.NoError(t, err)
	defer b.Close()
	data, err := io.ReadAll(b)
	require.NoError(t, err)
	return data
}

// snapshot is every file and link of a tree with what it holds, and its directories.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		all[path] = d.Type().String() + info.ModTime().Format(time.RFC3339Nano)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			all[path] += string(data)
		}
		return nil
	}))
	return all
}
