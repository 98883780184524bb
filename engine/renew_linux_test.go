package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// metaPages is how long both of bbolt's meta pages are together, in bytes.
var metaPages = int64(2 * os.Getpagesize())

// A sync of the log, or of bbolt's meta page, fails, and the next opening reads
// what it was about from the kernel, which has it, while the disk does not. What
// was read then, and what was acknowledged on top of it, survives a power cut:
// Open makes durable what it builds on by writing it once more.
func TestWhatAFailedSyncLeftIsRenewed(t *testing.T) {
	t.Parallel()
	requireFUSE(t)
	doubtful := map[string]int{} // openings that found what was not durable, by what it was
	for _, sticky := range []bool{false, true} {
		for at := 1; ; at++ {
			fault := faulty.Fault{At: at, Errno: syscall.EIO, Changes: true, Sticky: sticky}
			hit, found := renewal(t, fault)
			if hit == "" {
				break // every call has failed once
			}
			for _, name := range found {
				doubtful[name]++
			}
		}
	}
	t.Logf("openings on what was not durable: %v", doubtful)
	require.NotZero(t, doubtful["record"], "no sync of the log failed in the way that is to be shown")
	require.NotZero(t, doubtful["meta page"], "no sync of a meta page failed in the way that is to be shown")
}

// renewal uses a store until a call fails, opens it again without a fault, stores
// once more and cuts the power. It says which call failed, and what the opening
// found that was not durable.
func renewal(t *testing.T, fault faulty.Fault) (hit string, found []string) {
	t.Helper()
	dir := scratch(t)
	mount, err := faulty.New(dir, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, mount.Close()) }()
	r := &faultRun{mount: mount, is: storage.ErrIO, journal: workload.NewJournal(nil, nil),
		config: engine.FileStoreConfig{BaseDir: filepath.Join(mount.Dir, "store"), EnableDeduplication: true, NoSyncFS: true}}
	require.True(t, r.open())
	r.put(1, 3000)
	require.NoError(t, mount.Set(fault))
	r.put(2, 3000)
	r.close() // moves the rows to bbolt
	told, err := mount.Told()
	require.NoError(t, err)
	require.NoError(t, mount.Set(faulty.Fault{}))
	found = notDurable(t, r)

	require.True(t, r.open())
	r.put(3, 3000)
	want := contents(t, r.client.Store)
	cut := scratch(t)
	require.NoError(t, mount.Cut(cut, strict.Choice{Keep: strict.Nothing}))
	r.close()
	require.Empty(t, r.wrong)

	config := r.config
	config.BaseDir = filepath.Join(cut, "store")
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err, "call %d, a %s, failed (then all: %t), and what is not durable is: %v", fault.At, told.Hit, fault.Sticky, found)
	require.Equal(t, want, contents(t, f), "call %d, a %s, failed (then all: %t), and what is not durable is: %v", fault.At, told.Hit, fault.Sticky, found)
	require.NoError(t, f.Close())
	return told.Hit, found
}

// notDurable is which parts of the index the kernel has otherwise than the disk.
func notDurable(t *testing.T, r *faultRun) (names []string) {
	t.Helper()
	cut := scratch(t)
	require.NoError(t, r.mount.Cut(cut, strict.Choice{Keep: strict.Nothing}))
	for _, part := range []struct {
		name, file string
		length     int64
	}{{"meta page", "index.db", metaPages}, {"record", "log.0", -1}, {"record", "log.1", -1}} {
		path := filepath.Join(filepath.Base(r.config.BaseDir), ".mediabolt", part.file)
		if !bytes.Equal(head(t, filepath.Join(r.mount.Dir, path), part.length), head(t, filepath.Join(cut, path), part.length)) {
			names = append(names, part.name)
		}
	}
	return names
}

// head is the beginning of a file, or all of it if length is negative.
func head(t *testing.T, name string, length int64) []byte {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	if length < 0 {
		data, err := io.ReadAll(f)
		require.NoError(t, err)
		return data
	}
	data := make([]byte, length)
	_, err = io.ReadFull(f, data)
	require.True(t, err == nil || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
	return data
}

// contents are the bytes of every reference of a store, in base64.
func contents(t *testing.T, f *engine.FileStore) map[string]string {
	t.Helper()
	all := map[string]string{}
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		got, err := f.Retrieve(context.Background(), &storage.StorageReference{ID: e.Reference.ID})
		require.NoError(t, err)
		all[e.Reference.ID] = got.Data
	}
	return all
}
