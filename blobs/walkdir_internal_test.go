package blobs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// walked is what a walk finds, a page of some entries at a time.
func walked(t *testing.T, fsys fs.FS, page int) (names []string) {
	w := &walk{fsys: fsys, page: page, failed: func(_ string, err error) error { return err }}
	w.found = func(name string, e fs.DirEntry) error {
		names = append(names, name)
		if e.IsDir() {
			return w.dir(name)
		}
		return nil
	}
	require.NoError(t, w.dir("."))
	return names
}

// shuffled is a filesystem that lists directories in an order of its own, as disks do.
type shuffled struct{ fs.FS }

func (s shuffled) Open(name string) (fs.File, error) {
	f, err := s.FS.Open(name)
	if err != nil {
		return nil, err
	}
	dir, is := f.(fs.ReadDirFile)
	if !is {
		return f, nil
	}
	list, err := dir.ReadDir(-1)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return &shuffledDir{ReadDirFile: dir, list: list}, err
}

type shuffledDir struct {
	fs.ReadDirFile
	list []fs.DirEntry
}

func (d *shuffledDir) ReadDir(n int) (chunk []fs.DirEntry, err error) {
	n = min(n, len(d.list))
	chunk, d.list = d.list[:n], d.list[n:]
	if n == 0 {
		return nil, io.EOF
	}
	return chunk, nil
}

// A walk in pages finds what fs.WalkDir finds, in its order, whatever the page.
func TestWalkInPages(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 50 {
		files[fmt.Sprintf("f%d", i*7919%1000)] = &fstest.MapFile{}
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = &fstest.MapFile{}
		files[fmt.Sprintf("d%d/e/f%d", i%7, i)] = &fstest.MapFile{}
	}
	var want []string
	require.NoError(t, fs.WalkDir(files, ".", func(name string, _ fs.DirEntry, err error) error {
		if name != "." {
			want = append(want, name)
		}
		return err
	}))
	for _, page := range []int{1, 2, 3, 7, len(want), walkPage} {
		require.Equal(t, want, walked(t, shuffled{files}, page), "page %d", page)
	}
	require.Empty(t, walked(t, fstest.MapFS{}, 3))
}
