package blobs_test

import (
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/storage"
)

func init() { strict.Main() }

// references are the lines of n references.
func references(n byte) iter.Seq2[storage.SidecarLine, error] {
	return func(yield func(storage.SidecarLine, error) bool) {
		for i := range n {
			line := storage.SidecarLine{First: i == 0, Ref: &storage.RefRow{UUID: storage.UUID{14: n, 15: i + 1}}}
			if !yield(line, nil) {
				return
			}
		}
	}
}

// A sidecar that is made anew as a whole is the old one or the new one after a power
// cut, whatever survives that; one that is not may be neither, before a Settle.
func TestReplacedSidecarAfterAPowerCut(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip.Proof(t, "needs root and /dev/fuse")
	}
	for _, whole := range []bool{true, false} {
		m, err := strict.New(t.TempDir(), "", filepath.Join(t.TempDir(), "events"))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Close()) })
		require.NoError(t, os.Mkdir(m.Dir+"/store", 0o700))
		tr := mustOpen(t, m.Dir+"/store", blobs.Config{NoSyncFS: true})
		key, name := blob(1, "s/c")
		b := row(1, "s/c")
		tr.publish(key, name, []byte("x"))
		replace := func(n byte) []byte {
			require.NoError(t, tr.ReplaceSidecar(tr.ctx, &b, references(n), whole))
			data, err := os.ReadFile(filepath.Join(tr.dir, name+".meta"))
			require.NoError(t, err)
			return data
		}
		old := replace(40)
		require.NoError(t, tr.Settle(tr.ctx))
		require.NoError(t, m.SyncFS())
		renewed := replace(50)
		left := map[string]int{}
		cut := func(c strict.Choice) {
			dir := t.TempDir()
			require.NoError(t, m.Cut(dir, c))
			data, err := os.ReadFile(filepath.Join(dir, "store", name+".meta"))
			require.NoError(t, err)
			switch string(data) {
			case string(old):
				left["old"]++
			case string(renewed):
				left["new"]++
			default:
				left["neither"]++
			}
		}
		for seed := range uint64(50) {
			cut(strict.Choice{Keep: strict.Some, Seed: seed})
		}
		require.Equal(t, !whole, left["neither"] > 0, "%v", left)
		require.Positive(t, left["old"])
		require.Positive(t, left["new"])

		require.NoError(t, tr.Settle(tr.ctx))
		clear(left)
		cut(strict.Choice{Keep: strict.Nothing})
		require.Equal(t, map[string]int{"new": 1}, left, "durable with the next Settle")
	}
}
