package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// oldPaths are origins of every kind that a label has a form of its own for.
func oldPaths() []string {
	return []string{
		"/var/media/sessions/s1/a.png", "media/sessions/s1/b.png", "/var/\xff\xfe/c.png", `"quoted"`,
		"sha256:" + strings.Repeat("0", 64), "/deep/" + strings.Repeat("d/", 3000) + "e.png", "/line\nfeed", "..", "/a/../f.png",
	}
}

// mustAdopt stores a document for every old path, and answers the IDs by path.
func mustAdopt(t testing.TB, a *engine.Adoption, paths []string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for i, p := range paths {
		ref, err := a.StoreReader(context.Background(), bytes.NewReader(bytesOf(100+i, byte(i))), engine.Arrival{Origins: []string{p}})
		require.NoError(t, err)
		ids[p] = ref.ID
	}
	return ids
}

func requireResolved(t testing.TB, f *engine.FileStore, ids map[string]string) {
	t.Helper()
	for p, id := range ids {
		ref, err := f.Resolve(context.Background(), p)
		require.NoError(t, err, "%q", p)
		require.Equal(t, id, ref.ID, "%q", p)
	}
}

func TestResolve(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	_, err := f.Resolve(ctx, "/never")
	require.ErrorIs(t, err, storage.ErrNotFound)
	requireSentinel(t, err, config.BaseDir)
	_, err = f.Resolve(ctx, "")
	require.ErrorIs(t, err, storage.ErrInvalidRef)

	a, err := f.Adopt(ctx)
	require.NoError(t, err)
	ids := mustAdopt(t, a, oldPaths())
	ref := &storage.StorageReference{ID: ids["/a/../f.png"]}
	require.NoError(t, a.Record(ctx, ref, "/alias/f.png"))
	ids["/alias/f.png"], ids["/f.png"] = ref.ID, ref.ID
	requireResolved(t, f, ids)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close(), "closing again does nothing")
	require.NoError(t, f.Close())

	f = mustOpen(t, config)
	requireResolved(t, f, ids)
	entry := mustStat(t, f, &storage.StorageReference{ID: ids["/var/media/sessions/s1/a.png"]})
	require.Equal(t, "/var/media/sessions/s1/a.png", entry.Metadata.Labels[engine.AdoptedFrom])

	// A deleted one is not found, but known.
	require.NoError(t, f.Delete(ctx, ref))
	_, err = f.Resolve(ctx, "/f.png")
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.ErrorContains(t, err, ref.ID)
	was, found, err := f.FindOrigin(ctx, "/nowhere", "/alias/f.png")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, ref.ID, was.ID)
}

func TestRecordOfOriginsHasNoPathInClear(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	a, err := f.Adopt(context.Background())
	require.NoError(t, err)
	mustAdopt(t, a, []string{"/var/media/sessions/alice/a.png"})
	require.NoError(t, a.Close())
	data, err := os.ReadFile(recordOf(config))
	require.NoError(t, err)
	require.NotContains(t, string(data), "alice")
}

func recordOf(config engine.FileStoreConfig) string {
	return filepath.Join(config.BaseDir, ".mediabolt", "origins")
}

// A process that is killed during an adoption has recorded some, all or none of
// what it stored: the next one knows all of it.
func TestAdoptionSurvivesAKill(t *testing.T) {
	for synced := range len(oldPaths()) + 1 {
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
		ids := map[string]string{}
		mustAbandon(t, config, func(f *engine.FileStore) {
			a, err := f.Adopt(context.Background())
			require.NoError(t, err)
			for p, id := range mustAdopt(t, a, oldPaths()[:synced]) {
				ids[p] = id
			}
			require.NoError(t, a.Sync(context.Background()))
			for p, id := range mustAdopt(t, a, oldPaths()[synced:]) {
				ids[p] = id
			}
		})
		f := mustOpen(t, config)
		requireResolved(t, f, ids)
		require.NoError(t, f.Close())
		f = mustOpen(t, config)
		requireResolved(t, f, ids)
	}
}

// Whatever becomes of the record, the labels bring it back.
func TestDamagedRecordOfOrigins(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	var ids map[string]string
	setup(t, config, func(f *engine.FileStore) {
		a, err := f.Adopt(context.Background())
		require.NoError(t, err)
		ids = mustAdopt(t, a, oldPaths())
		require.NoError(t, a.Close())
	})
	whole, err := os.ReadFile(recordOf(config))
	require.NoError(t, err)
	damages := map[string]func() error{
		"gone":     func() error { return os.Remove(recordOf(config)) },
		"empty":    func() error { return os.Truncate(recordOf(config), 0) },
		"replaced": func() error { return os.WriteFile(recordOf(config), []byte("what is this"), 0o600) },
	}
	for at := 0; at < len(whole); at += 7 {
		damages[fmt.Sprintf("bit %d", at)] = func() error {
			data := bytes.Clone(whole)
			data[at] ^= 1 << (at % 8)
			return os.WriteFile(recordOf(config), data, 0o600)
		}
		damages[fmt.Sprintf("cut %d", at)] = func() error { return os.WriteFile(recordOf(config), whole[:at], 0o600) }
	}
	for name, damage := range damages {
		require.NoError(t, damage(), name)
		setup(t, config, func(f *engine.FileStore) { requireResolved(t, f, ids) })
	}
}

func TestRecordOfOriginsOfAnotherVersion(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	setup(t, config, func(f *engine.FileStore) {
		a, err := f.Adopt(context.Background())
		require.NoError(t, err)
		require.NoError(t, a.Close())
	})
	require.NoError(t, os.WriteFile(recordOf(config), engine.OriginsHeaderOf("mborig\x00\x02"), 0o600))
	f := mustOpen(t, config)
	_, err := f.Resolve(context.Background(), "/x")
	require.ErrorIs(t, err, storage.ErrVersion)
	require.ErrorContains(t, err, recordOf(config))
	_, err = f.Adopt(context.Background())
	require.ErrorIs(t, err, storage.ErrVersion)
	require.ErrorContains(t, err, "adopt into "+config.BaseDir)
}

func TestRecordThatCannotBeWritten(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	ids := map[string]string{}
	setup(t, config, func(f *engine.FileStore) {
		a, err := f.Adopt(context.Background())
		require.NoError(t, err)
		require.NoError(t, os.Rename(recordOf(config), recordOf(config)+".away"))
		ids = mustAdopt(t, a, []string{"/x"})
		err = a.Sync(context.Background())
		requireSentinel(t, err, config.BaseDir)
		require.NoError(t, os.Rename(recordOf(config)+".away", recordOf(config)))
		require.Error(t, a.Sync(context.Background()), "what failed is not retried as if it had worked")
		require.Error(t, a.Close())
	})
	setup(t, config, func(f *engine.FileStore) { requireResolved(t, f, ids) })
}

// What cannot be told apart elsewhere is one reference that several deletions end.
func TestAdoptedCount(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	a, err := f.Adopt(ctx)
	require.NoError(t, err)
	_, err = a.StoreReader(ctx, strings.NewReader("x"), engine.Arrival{})
	require.ErrorIs(t, err, storage.ErrInvalidMedia)
	_, err = a.StoreReader(ctx, strings.NewReader("x"), engine.Arrival{Origins: []string{"/x"}, Count: -1})
	require.ErrorIs(t, err, storage.ErrInvalidMedia)
	ref, err := a.StoreReader(ctx, strings.NewReader("x"), engine.Arrival{Origins: []string{"/x"}, Count: 3})
	require.NoError(t, err)
	require.NoError(t, a.Close())
	for left := int64(3); left > 0; left-- {
		require.Equal(t, left, mustStat(t, f, ref).Count)
		require.NoError(t, f.Delete(ctx, ref))
		require.NoError(t, f.Close())
		f = mustOpen(t, config)
	}
	_, err = f.Stat(ctx, ref)
	require.ErrorIs(t, err, storage.ErrNotFound)
}

func TestOneAdoptionAtATime(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	a, err := f.Adopt(context.Background())
	require.NoError(t, err)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = f.Adopt(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, a.Close())
	b, err := f.Adopt(context.Background())
	require.NoError(t, err)
	require.NoError(t, b.Close())
}
