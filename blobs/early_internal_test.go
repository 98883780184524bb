package blobs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The disk is told of a stream in pieces that follow each other, and what is in
// the file is the stream.
func TestEarlyWriter(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	w := &earlyWriter{file: f}
	var want []byte
	for n := range 40 {
		piece := bytes.Repeat([]byte{byte(n)}, 100<<10+n)
		want = append(want, piece...)
		wrote, err := w.Write(piece)
		require.NoError(t, err)
		require.Equal(t, len(piece), wrote)
		require.EqualValues(t, len(want), w.end)
		require.Less(t, w.end-w.begun, int64(earlyStep))
	}
	require.Greater(t, w.begun, int64(3*earlyStep))
	got, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}
