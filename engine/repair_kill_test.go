package engine_test

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
)

// mangle makes of an empty directory a closed store in which something of every
// kind is wrong, and answers what is in its tree. A repair ends with the bytes
// small, three times; other is lost.
func mangle(t *testing.T, dir string) (config engine.FileStoreConfig, before map[string]string) {
	t.Helper()
	f, config, refs := messy(t, dir, true)
	for _, m := range messes {
		if m.name == "damaged, and a twin" || m.name == "orphan with a sidecar that tells nothing" {
			m.make(t, config.BaseDir, refs[0].Metadata["path"], "")
		}
	}
	truncate(3)(t, under(config.BaseDir, refs[0].Metadata["path"]+".meta"))
	truncate(3)(t, under(config.BaseDir, refs[2].Metadata["path"]))
	require.NoError(t, f.Close())
	return config, treeWithout(t, config.BaseDir)
}

// dropAll is a repair of all that mangle does, and of what restoring that brings back.
var dropAll = engine.RepairOptions{MaxShare: 100, DropLost: true, KnownOrphans: true}

// requireGoesOn requires that a repair of a store that a kill, a cut or a fault has
// interrupted goes on, and loses nothing.
func requireGoesOn(t *testing.T, config engine.FileStoreConfig, before map[string]string) {
	t.Helper()
	requireKept(t, config.BaseDir, before)
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	requireKept(t, config.BaseDir, before)
	for result, err := range f.Repair(context.Background(), mustPlan(t, f, dropAll)) {
		require.NoError(t, err)
		require.NoError(t, result.Err)
	}
	require.Empty(t, damage(t, f))
	require.Equal(t, counted(small, small, small), held(t, f))
	require.NoError(t, f.Close())
	requireKept(t, config.BaseDir, before)
}

// killed runs a repair of a mangled store until the nth time that it reaches a
// point, and answers what a kill would leave there; nothing when there is no nth.
func killed(t *testing.T, point engine.FaultPoint, nth int) (config engine.FileStoreConfig, before map[string]string) {
	t.Helper()
	config, before = mangle(t, t.TempDir())
	left := t.TempDir()
	n := 0
	f, err := engine.Open(context.Background(), engine.WithFaults(config, func(_ context.Context, p engine.FaultPoint) error {
		if p != point {
			return nil
		}
		if n++; n == nth {
			require.NoError(t, copyTree(config.BaseDir, left))
		}
		if n >= nth {
			return errCrash
		}
		return nil
	}))
	require.NoError(t, err)
	plan := mustPlan(t, f, dropAll)
	require.NoError(t, plan.Refusal)
	for result, err := range f.Repair(context.Background(), plan) {
		require.NoError(t, err)
		if result.Err != nil {
			require.ErrorIs(t, result.Err, errCrash)
			break
		}
	}
	require.NoError(t, f.Abandon())
	if n < nth {
		return engine.FileStoreConfig{}, nil
	}
	config.BaseDir = left
	return config, before
}

// A repair that is killed between any two steps leaves every file in its place or
// in the quarantine, with a line that tells of it; another one goes on.
func TestRepairKilledAnywhere(t *testing.T) {
	for point, least := range map[engine.FaultPoint]int{
		engine.FaultNoted: 6, engine.FaultAside: 6, engine.FaultClaimed: 1, engine.FaultWritten: 1, engine.FaultLost: 1, engine.FaultRemoved: 1,
	} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			nth := 1
			for ; ; nth++ {
				config, before := killed(t, point, nth)
				if before == nil {
					break
				}
				if point == engine.FaultNoted {
					linkNoted(t, config.BaseDir)
				}
				requireGoesOn(t, config, before)
			}
			require.Greater(t, nth, least, "the point was reached")
		})
	}
}

// linkNoted makes of what a kill left before a move what one in the middle of it
// leaves: both names.
func linkNoted(t *testing.T, dir string) {
	t.Helper()
	manifests, err := filepath.Glob(filepath.Join(dir, ".mediabolt/quarantine/*/manifest.jsonl"))
	require.NoError(t, err)
	require.Len(t, manifests, 1)
	data, err := os.ReadFile(manifests[0])
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	_, rest, _ := strings.Cut(lines[len(lines)-1], `"path":"`)
	name, _, _ := strings.Cut(rest, `"`)
	kept := filepath.Join(filepath.Dir(manifests[0]), "files", filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(kept), 0o700))
	require.NoError(t, os.Link(under(dir, name), kept))
}

// requireKept requires that every file of a tree is in its place or, under the same
// path, in the quarantine, whose manifest has it.
func requireKept(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	for name, data := range before {
		if data == "directory" {
			continue
		}
		if now, err := os.ReadFile(under(dir, name)); err == nil && string(now) == data {
			continue
		}
		require.True(t, isAside(t, dir, name, data), "%s is neither in its place nor in the quarantine with a line", name)
	}
}

// isAside says whether some batch has a file, as it was, and a line for it. What a
// repair wrote, and a crash damaged, may be in a later one.
func isAside(t *testing.T, dir, name, data string) bool {
	t.Helper()
	aside, err := filepath.Glob(filepath.Join(dir, ".mediabolt/quarantine/*/files", filepath.FromSlash(name)))
	require.NoError(t, err)
	for _, at := range aside {
		now, err := os.ReadFile(at)
		require.NoError(t, err)
		manifest, err := os.ReadFile(filepath.Join(strings.TrimSuffix(at, filepath.FromSlash("/files/"+name)), "manifest.jsonl"))
		require.NoError(t, err)
		line := false
		for up := name; up != "."; up = path.Dir(up) { // a directory is moved whole
			line = line || strings.Contains(string(manifest), `"path":"`+up+`"`)
		}
		if string(now) == data && line {
			return true
		}
	}
	return false
}
