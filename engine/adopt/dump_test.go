package adopt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

func mustDump(t testing.TB, f *engine.FileStore) (string, int64) {
	t.Helper()
	var out bytes.Buffer
	n, err := adopt.Dump(context.Background(), f, &out)
	require.NoError(t, err)
	require.True(t, json.Valid(out.Bytes()), "%s", &out)
	require.Zero(t, n.Nameless)
	return out.String(), n.Blobs
}

// What is adopted, dumped and adopted again, from the store's own tree, is the same.
func TestDumpAndAdopt(t *testing.T) {
	ctx := context.Background()
	j := newJSONStore(t)
	for i := range 300 { // some pages
		j.index["sha256:"+hexOf(png(fmt.Sprint(i)))] = j.put(fmt.Sprintf("s%d/c/%d.png", i%7, i), png(fmt.Sprint(i)), 1+i%4)
	}
	base := t.TempDir()
	f := mustOpen(t, base)
	_, r := adoptAll(t, f, adopt.Options{Dir: j.dir, Pattern: "{session}/{conversation}/*"})
	require.Equal(t, 300, r.Taken)
	_, err := f.StoreReader(ctx, bytes.NewReader(png("0")), storage.MediaInfo{}, storage.MediaMetadata{}) // one more
	require.NoError(t, err)
	text, n := mustDump(t, f)
	require.Equal(t, int64(300), n)
	var got map[string]struct {
		Hash     string `json:"hash"`
		Path     string `json:"path"`
		Size     int    `json:"size"`
		MimeType string `json:"mime_type"`
		RefCount int    `json:"ref_count"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	for i := range 300 {
		want := 1 + i%4
		if i == 0 {
			want++
		}
		data := png(fmt.Sprint(i))
		e := got["sha256:"+hexOf(data)]
		require.Equal(t, want, e.RefCount, i)
		require.Equal(t, hexOf(data), e.Hash)
		require.Equal(t, len(data), e.Size)
		stored, err := os.ReadFile(filepath.Join(base, filepath.FromSlash(e.Path)))
		require.NoError(t, err)
		require.Equal(t, data, stored)
	}

	require.NoError(t, f.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(base, ".mediabolt")))
	write(t, base, ".dedup-index.json", []byte(text))
	again := mustOpen(t, t.TempDir())
	_, r = adoptAll(t, again, adopt.Options{Dir: base})
	require.Equal(t, 300, r.Taken)
	second, _ := mustDump(t, again)
	require.Equal(t, strings.Count(text, `"ref_count":4`), strings.Count(second, `"ref_count":4`))
}

// The same bytes in files of their own have entries of their own.
func TestDumpWithoutDedup(t *testing.T) {
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: t.TempDir()})
	require.NoError(t, err)
	defer f.Close()
	for range 3 {
		_, err := f.StoreReader(context.Background(), bytes.NewReader(png("a")), storage.MediaInfo{}, storage.MediaMetadata{})
		require.NoError(t, err)
	}
	text, n := mustDump(t, f)
	require.Equal(t, int64(3), n)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	require.Len(t, got, 3)
}

func TestDumpOfAnEmptyStore(t *testing.T) {
	text, n := mustDump(t, mustOpen(t, t.TempDir()))
	require.Zero(t, n)
	require.JSONEq(t, "{}", text)
}

func TestDumpThatFails(t *testing.T) {
	f := mustOpen(t, t.TempDir())
	_, err := f.StoreReader(context.Background(), bytes.NewReader(png("a")), storage.MediaInfo{}, storage.MediaMetadata{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	_, err = adopt.Dump(ctx, f, &out)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, json.Valid(out.Bytes()))
	full := errors.New("full")
	_, err = adopt.Dump(context.Background(), f, failing{full})
	require.ErrorIs(t, err, full)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
