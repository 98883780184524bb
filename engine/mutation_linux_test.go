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
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// mutation is a protocol broken on purpose, from outside of the engine: by what
// is put between it and its index and blobs.
type mutation struct {
	name      string
	broken    string // a promise that some cut then breaks
	configure func(engine.FileStoreConfig) engine.FileStoreConfig
	// recovers says that the recovery is what is broken, not what goes before.
	recovers bool
	// lenient says that ext4, xfs and btrfs make it harmless: they write a new
	// file's name with the file.
	lenient bool
}

// mutations lists every one.
func mutations() []mutation {
	return []mutation{
		{name: "no fsync of the staged file", broken: "bytes are as they were stored", configure: halfSync(syncStagingDirs)},
		{name: "no fsync of the staging directory", broken: "bytes are as they were stored", configure: halfSync(syncStagedFiles), lenient: true},
		{name: "publish before commit", broken: "no file is without a row",
			configure: seams(func(dir string, m *mutated) { m.beforeAdd = publishEarly(dir) })},
		{name: "unlink before commit", broken: "every row has its file",
			configure: seams(func(dir string, m *mutated) { m.beforeRemove = unlinkEarly(dir) })},
		{name: "unlinks row dropped", broken: "no file is without a row",
			configure: seams(func(_ string, m *mutated) { m.afterRemove = dropUnlink })},
		{name: "recovery of staging skipped", broken: "nothing is left over", recovers: true,
			configure: seams(func(_ string, m *mutated) { m.blindOnce = true })},
		{name: "dedup hit without the file check", broken: "bytes are as they were stored",
			configure: seams(func(_ string, m *mutated) { m.trusting = true })},
		{name: "checkpoint recorded before the sidecars are durable", broken: "the verification finds nothing: sidecar: ",
			configure: seams(func(_ string, m *mutated) { m.settleLate = true })},
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

// halfSync has staged files made durable by half alone, on a filesystem that
// syncfs(2) reaches.
func halfSync(half func(staging string) error) func(engine.FileStoreConfig) engine.FileStoreConfig {
	return func(config engine.FileStoreConfig) engine.FileStoreConfig {
		return withHalfSync(config, half, func() error { return syncWhole(config.BaseDir) })
	}
}

// withHalfSync is a configuration in which whole syncs everything except for
// what is staged.
func withHalfSync(config engine.FileStoreConfig, half func(staging string) error, whole func() error) engine.FileStoreConfig {
	b := &halfSynced{}
	config.NoSyncFS = false
	config = engine.WithSyncFS(config, func() error {
		if b.staged {
			return half(staging(config.BaseDir))
		}
		return whole()
	})
	return engine.WithSeams(config, func(i engine.Index, blobs engine.Blobs) (engine.Index, engine.Blobs) {
		b.Blobs = blobs
		return i, b
	})
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
	kinds := []string{"ext4"}
	if os.Getenv(proofEnv) == "long" {
		kinds = []string{"ext4", "xfs", "btrfs"}
	}
	for _, m := range mutations() {
		if m.lenient {
			continue // see TestStrictHalfSyncs
		}
		for _, kind := range kinds {
			t.Run(m.name+"/"+kind, func(t *testing.T) {
				if kind != "btrfs" { // no two of whose disks can be mounted at once
					t.Parallel()
				}
				plan := disk.Plan{Kinds: []string{kind}, Seeds: []uint64{1}, Limit: mutationLimit, First: true, LogDir: t.TempDir()}
				if m.recovers {
					plan.Recover = m.configure
				} else {
					plan.Configure = m.configure
				}
				result, err := disk.Series(context.Background(), disks, plan)
				require.NoError(t, err)
				require.NotEmpty(t, result.Failures, "after %d cuts", result.Cuts)
				failure := result.Failures[0].String()
				t.Logf("%d cuts, then one failed:\n%s", result.Cuts, failure)
				if kind == "ext4" { // others may show another promise broken first
					require.Contains(t, failure, m.broken)
				}
				if !m.recovers {
					requireReproduced(t, disks, result.Failures[0])
				}
			})
		}
	}
}

// mutationLimit is how long a mutation may stay unnoticed, many times what it
// takes.
const mutationLimit = time.Minute

// requireReproduced requires that the line that a failure prints says enough to
// have it once more.
func requireReproduced(t *testing.T, disks *disk.Disks, failure disk.Failure) {
	t.Helper()
	c, err := disk.ParseCase(failure.Case)
	require.NoError(t, err)
	recording, err := disk.Load(disks, c, failure.Log)
	require.NoError(t, err)
	judged, err := recording.Cut(context.Background(), c.Event, c.Choice)
	require.NoError(t, err)
	promises := func(list []workload.Violation) (names []string) {
		for _, v := range list {
			names = append(names, v.Promise)
		}
		return names
	}
	require.ElementsMatch(t, promises(failure.Violations), promises(judged.Violations))
	require.NoError(t, judged.Recovery.Drop())
	require.NoError(t, recording.Drop())
}

// Each half of making staged files durable is needed under the strict model,
// which is no kinder than it has to be.
func TestStrictHalfSyncs(t *testing.T) {
	requireFUSE(t)
	for name, half := range map[string]func(staging string) error{
		"no fsync of the staged file": syncStagingDirs, "no fsync of the staging directory": syncStagedFiles,
	} {
		t.Run(name, func(t *testing.T) {
			run := &strict.Run{Seed: 1, Scratch: scratch(t), SyncFS: func(config engine.FileStoreConfig, sync func() error) engine.FileStoreConfig {
				return withHalfSync(config, half, sync)
			}}
			rec, err := run.Record(context.Background())
			require.NoError(t, err)
			defer func() { require.NoError(t, rec.Close()) }()
			out, err := rec.Try(context.Background(), strict.Plan{Every: 4, Seeds: 1, Seed: 1})
			require.NoError(t, err)
			require.NotEmpty(t, out.Failures, "after %d cuts", out.Cuts)
			t.Logf("%d cuts, then one failed:\n%s", out.Cuts, out.Failures[0].String())
			require.Contains(t, out.Failures[0].String(), "bytes are as they were stored")
			for _, failure := range out.Failures {
				require.NoError(t, os.RemoveAll(failure.Case))
			}
		})
	}
}
