package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/disk"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// mutation is a protocol broken on purpose, from outside of the engine: by what
// is put between it and its index and blobs.
type mutation struct {
	name      string
	configure func(engine.FileStoreConfig) engine.FileStoreConfig
}

// mutations lists every one. Those that name a directory's or a file's sync
// alone are of the kind that a filesystem may make harmless.
func mutations() []mutation {
	return []mutation{
		{"no fsync of the staged file", halfSync(syncStagingDirs)},
		{"no fsync of the staging directory", halfSync(syncStagedFiles)},
		{"publish before commit", seams(func(dir string, m *mutated) { m.beforeAdd = publishEarly(dir) })},
		{"unlink before commit", seams(func(dir string, m *mutated) { m.beforeRemove = unlinkEarly(dir) })},
		{"unlinks row dropped", seams(func(_ string, m *mutated) { m.afterRemove = dropUnlink })},
		{"recovery of staging skipped", seams(func(_ string, m *mutated) { m.blindOnce = true })},
		{"dedup hit without the file check", seams(func(_ string, m *mutated) { m.trusting = true })},
		{"checkpoint recorded before the sidecars are durable", seams(func(_ string, m *mutated) { m.settleLate = true })},
	}
}

// mutated is an index and blobs, each of which may be told to misbehave.
type mutated struct {
	engine.Index
	blobs mutatedBlobs

	beforeAdd    func(*storage.Addition) error
	beforeRemove func(context.Context, engine.Index, storage.ID) error
	afterRemove  func(context.Context, engine.Index, *storage.Removal) error
	settleLate   bool // blobs settle after the index has dropped the debt

	blindOnce bool // the first look into staging sees nothing
	trusting  bool // files have the sizes that they once had
}

type mutatedBlobs struct {
	engine.Blobs
	m *mutated

	looked atomic.Bool
	mu     sync.Mutex // guards sizes
	sizes  map[string]int64
}

// seams breaks the protocol of a store in the way that set says.
func seams(set func(dir string, m *mutated)) func(engine.FileStoreConfig) engine.FileStoreConfig {
	return func(config engine.FileStoreConfig) engine.FileStoreConfig {
		return engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			m := &mutated{Index: i}
			m.blobs.Blobs, m.blobs.m, m.blobs.sizes = b, m, map[string]int64{}
			set(config.BaseDir, m)
			return m, &m.blobs
		})
	}
}

func (m *mutated) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	if m.beforeAdd != nil && add.Staged {
		if err := m.beforeAdd(add); err != nil {
			return storage.BlobRow{}, err
		}
	}
	row, err := m.Index.Add(ctx, add)
	if err == nil {
		m.blobs.mu.Lock()
		defer m.blobs.mu.Unlock()
		m.blobs.sizes[row.Path] = row.Size
	}
	return row, err
}

func (m *mutated) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	if m.beforeRemove != nil {
		if err := m.beforeRemove(ctx, m.Index, id); err != nil {
			return storage.Removal{}, err
		}
	}
	removal, err := m.Index.Remove(ctx, id)
	if err == nil && m.afterRemove != nil {
		err = m.afterRemove(ctx, m.Index, &removal)
	}
	return removal, err
}

func (m *mutated) Settle(ctx context.Context, paid storage.Debt) error {
	err := m.Index.Settle(ctx, paid)
	if err == nil && m.settleLate {
		err = m.blobs.Blobs.Settle(ctx)
	}
	return err
}

func (b *mutatedBlobs) Settle(ctx context.Context) error {
	if b.m.settleLate {
		return nil
	}
	return b.Blobs.Settle(ctx)
}

func (b *mutatedBlobs) Staged(ctx context.Context) ([]storage.StagedFile, error) {
	if b.m.blindOnce && !b.looked.Swap(true) {
		return nil, nil
	}
	return b.Blobs.Staged(ctx)
}

func (b *mutatedBlobs) Size(ctx context.Context, path string) (int64, error) {
	if b.m.trusting {
		b.mu.Lock()
		defer b.mu.Unlock()
		if size, known := b.sizes[path]; known {
			return size, nil
		}
	}
	return b.Blobs.Size(ctx, path)
}

// staging is the staging directory of a store.
func staging(dir string) string { return filepath.Join(dir, ".mediabolt", "staging") }

// publishEarly gives a staged blob its path when its row is not there yet.
func publishEarly(dir string) func(*storage.Addition) error {
	return func(add *storage.Addition) error {
		staged, err := filepath.Glob(filepath.Join(staging(dir), "*", add.Blob.Key.String()))
		if err != nil || len(staged) != 1 {
			return errors.Join(err, fs.ErrNotExist)
		}
		err = os.Link(staged[0], filepath.Join(dir, filepath.FromSlash(add.Blob.Path)))
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
}

// unlinkEarly removes the file of a blob when its row is still there.
func unlinkEarly(dir string) func(context.Context, engine.Index, storage.ID) error {
	return func(ctx context.Context, index engine.Index, id storage.ID) error {
		_, blob, err := index.Ref(ctx, id)
		if errors.Is(err, storage.ErrNotFound) || err == nil && blob.Refs > 1 {
			return nil
		} else if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(blob.Path))
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncPath(filepath.Dir(name))
	}
}

// dropUnlink has the index forget that files are still to be removed.
func dropUnlink(ctx context.Context, index engine.Index, r *storage.Removal) error {
	if !r.Last {
		return nil
	}
	return index.Settle(ctx, storage.Debt{Unlinks: []storage.Unlink{{Path: r.Blob.Path}}})
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// halfSync has staged files made durable by sync alone.
func halfSync(sync func(staging string) error) func(engine.FileStoreConfig) engine.FileStoreConfig {
	return func(config engine.FileStoreConfig) engine.FileStoreConfig {
		b := &halfSynced{}
		config.NoSyncFS = false
		config = engine.WithSyncFS(config, func() error {
			if b.staged {
				return sync(staging(config.BaseDir))
			}
			return syncWhole(config.BaseDir)
		})
		return engine.WithSeams(config, func(i engine.Index, blobs engine.Blobs) (engine.Index, engine.Blobs) {
			b.Blobs = blobs
			return i, b
		})
	}
}

// halfSynced is blobs whose syncs are all of the whole filesystem, for which a
// half stands.
type halfSynced struct {
	engine.Blobs
	one    sync.Mutex // held during a sync, guards staged
	staged bool       // the sync is of what is staged
}

func (b *halfSynced) Sync(ctx context.Context, keys ...storage.BlobKey) error {
	b.one.Lock()
	defer b.one.Unlock()
	b.staged = true
	// One key twice is a group, which is synced with the filesystem.
	return b.Blobs.Sync(ctx, append(keys, keys[0])...)
}

func (b *halfSynced) Settle(ctx context.Context) error {
	b.one.Lock()
	defer b.one.Unlock()
	b.staged = false
	return b.Blobs.Settle(ctx)
}

func syncWhole(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

func syncStagingDirs(staging string) error { return syncAll(filepath.Join(staging, "*")) }

func syncStagedFiles(staging string) error { return syncAll(filepath.Join(staging, "*", "*")) }

func syncAll(pattern string) error {
	names, err := filepath.Glob(pattern)
	for _, name := range names {
		if e := syncPath(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Every protocol that is broken on purpose breaks a promise after some cut of
// the power. The table in ARCHITECTURE.md says which.
func TestMutations(t *testing.T) {
	disks := mustStartDisks(t)
	for _, m := range mutations() {
		t.Run(m.name, func(t *testing.T) {
			for _, f := range disk.Filesystems() {
				result, err := disk.Series(context.Background(), disks, disk.Plan{
					Kinds: []string{f.Name}, Seeds: []uint64{1}, Limit: 20 * time.Second, First: true,
					LogDir: t.TempDir(), Configure: m.configure,
				})
				require.NoError(t, err)
				t.Logf("%s: %d cuts, %d failed", f.Name, result.Cuts, len(result.Failures))
				for _, failure := range result.Failures {
					t.Log(failure.String())
				}
			}
		})
	}
}
