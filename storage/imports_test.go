package storage_test

import (
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/mediabolt/mediabolt"

// Imports run one way: storage <- blobs, boltindex <- engine <- certify <- cmd,
// and engine <- bench, observe.
// Tests may import what they like.
func TestImportsRunOneWay(t *testing.T) {
	storage, blobs, boltindex, engine := module+"/storage", module+"/blobs", module+"/boltindex", module+"/engine"
	certify, internal := module+"/certify", module+"/internal/"
	may := map[string]func(dir, imported string) bool{
		"storage": func(_, imported string) bool { return !strings.Contains(strings.Split(imported, "/")[0], ".") },
		"blobs": func(_, imported string) bool {
			return !ours(imported) || imported == storage || below(imported, internal)
		},
		"boltindex": func(_, imported string) bool {
			return !ours(imported) || imported == storage || below(imported, internal)
		},
		"internal": func(_, imported string) bool {
			return !ours(imported) || imported == storage || below(imported, internal)
		},
		"engine": func(dir, imported string) bool {
			if dir != "engine" && imported == engine {
				return true // the suites for those who implement its interfaces
			}
			return !ours(imported) || slices.Contains([]string{storage, blobs, boltindex, engine + "/sha256mb"}, imported) || below(imported, internal)
		},
		"certify": func(_, imported string) bool {
			return !ours(imported) || slices.Contains([]string{storage, engine}, imported) || below(imported, certify+"/")
		},
		"observe": func(_, imported string) bool {
			return !ours(imported) || slices.Contains([]string{storage, engine}, imported)
		},
		"cmd": func(_, imported string) bool {
			return !below(imported, module+"/bench") && !below(imported, module+"/observe")
		},
	}
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	seen := map[string]bool{}
	for layer, allowed := range may {
		err := fs.WalkDir(os.DirFS(root), layer, func(dir string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			if e.Name() == "testdata" {
				return fs.SkipDir
			}
			for _, imported := range imports(t, filepath.Join(root, filepath.FromSlash(dir))) {
				seen[layer] = true
				require.True(t, allowed(dir, imported), "%s imports %s", dir, imported)
			}
			return nil
		})
		if layer != "internal" {
			require.NoError(t, err)
		}
	}
	for _, layer := range []string{"storage", "blobs", "boltindex", "engine", "certify", "observe"} {
		require.True(t, seen[layer], "nothing was looked at in %s", layer)
	}
}

func ours(imported string) bool { return imported == module || below(imported, module+"/") }

func below(imported, prefix string) bool { return strings.HasPrefix(imported, prefix) }

// imports is what the package in dir imports on any of the systems that the
// module is built for, without its tests; nothing where there is no package.
func imports(t *testing.T, dir string) []string {
	t.Helper()
	all := map[string]bool{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		c := build.Default
		c.GOOS, c.CgoEnabled = system, false
		p, err := c.ImportDir(dir, 0)
		if _, none := err.(*build.NoGoError); none {
			continue
		}
		require.NoError(t, err, path.Base(dir))
		for _, imported := range p.Imports {
			all[imported] = true
		}
	}
	var list []string
	for imported := range all {
		list = append(list, imported)
	}
	return list
}
