package adopt_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine/adopt"
)

// Whatever an old index or a .meta file says, nothing outside the source is taken and
// every file is spoken of once.
func FuzzIndexes(f *testing.F) {
	f.Add([]byte(`{"sha256:`+hexOf(png("a"))+`": {"path": "../secret", "size": 6, "ref_count": 1}}`), []byte(`{"session_id": "s"}`))
	f.Add([]byte(`{"`+hexOf(png("a"))+`": "sessions/s/a.png", "x": 5}`), []byte(`{"mime_type": "audio/pcm", "timestamp": "x"}`))
	outside := f.TempDir()
	write(f, outside, "secret", []byte("secret"))
	f.Fuzz(func(t *testing.T, index, meta []byte) {
		dir := filepath.Join(outside, "source")
		require.NoError(t, os.RemoveAll(dir))
		write(t, dir, "sessions/s/a.png", png("a"))
		write(t, dir, "sessions/s/a.png.meta", meta)
		for _, name := range []string{".dedup-index.json", ".dedup_index.json"} {
			write(t, dir, name, index)
			taken := 0
			for item, err := range adopt.Adopt(t.Context(), nil, adopt.Options{Dir: dir, DryRun: true}) {
				if err != nil {
					break // of an index that cannot be read
				}
				if item.State == adopt.Ready {
					taken++
					require.Equal(t, "sessions/s/a.png", item.Path)
					require.Equal(t, hexOf(png("a")), item.SHA256)
				}
			}
			require.LessOrEqual(t, taken, 1)
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
		}
	})
}

// A pattern is refused, or matches without an error.
func FuzzPattern(f *testing.F) {
	for _, p := range []string{"{session}/{conversation}/*", "**/x{run}y", "a\\{b", "{user}", "*[", "(?P<x>.)"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		o := adopt.Options{Dir: t.TempDir(), Pattern: pattern}
		_ = o.Check() // no panic is what is asked for
	})
}
