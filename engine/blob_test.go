package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

var (
	_ io.ReadSeekCloser = (*engine.Blob)(nil)
	_ io.ReaderAt       = (*engine.Blob)(nil)
	_ io.WriterTo       = (*engine.Blob)(nil)
)

// mustOpenBlob opens the blob of a reference until the test ends.
func mustOpenBlob(t testing.TB, f *engine.FileStore, ref *storage.StorageReference) *engine.Blob {
	t.Helper()
	blob, err := f.Open(context.Background(), ref)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, blob.Close()) })
	return blob
}

// mustStoreBlob stores bytes and opens their blob.
func mustStoreBlob(t testing.TB, f *engine.FileStore, data []byte) *engine.Blob {
	t.Helper()
	return mustOpenBlob(t, f, mustStore(t, f, data, storage.MediaMetadata{}))
}

func TestBlobTellsWhatItIs(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	data := bytesOf(1234, 1)
	before := time.Now().Truncate(time.Microsecond)
	mustStore(t, f, data, storage.MediaMetadata{})
	stored := time.Now()
	created := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	ref, err := f.StoreReader(context.Background(), bytes.NewReader(data),
		storage.MediaInfo{Type: "image", MimeType: "image/png"}, storage.MediaMetadata{CreatedAt: created})
	require.NoError(t, err)
	blob := mustOpenBlob(t, f, ref)
	require.Equal(t, ref.ID, blob.ID())
	require.EqualValues(t, 1234, blob.Size())
	require.Equal(t, "image", blob.Type())
	require.Equal(t, "image/png", blob.MimeType())
	require.Equal(t, storage.Digest(sha256.Sum256(data)), blob.Digest())
	require.Equal(t, created, blob.CreatedAt())
	require.WithinRange(t, blob.StoredAt(), before, stored)
}

func TestBlobReadsAsAReaderMust(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	for _, size := range []int{0, 1, 100, 4096, 70_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := bytesOf(size, 1)
			require.NoError(t, iotest.TestReader(mustStoreBlob(t, f, data), data))
		})
	}
}

func TestBlobReadAtFromManyGoroutines(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	data := bytesOf(3<<20, 1)
	blob := mustStoreBlob(t, f, data)
	atOnce(t, 16, func(i int) error {
		part := make([]byte, 10_000)
		for n := range 50 {
			off := (i*50 + n) * 3931 % len(data)
			got, err := blob.ReadAt(part, int64(off))
			want := data[off:min(len(data), off+len(part))]
			if (err != nil) != (len(want) < len(part)) || err != nil && err != io.EOF {
				return fmt.Errorf("read of %d bytes at %d: %d, %w", len(part), off, got, err)
			}
			if !bytes.Equal(part[:got], want) {
				return fmt.Errorf("%d other bytes at %d", got, off)
			}
		}
		return nil
	})
}

func TestBlobSeek(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	data := []byte("0123456789")
	tests := []struct {
		name   string
		offset int64
		whence int
		want   int64 // -1: refused
	}{
		{"start", 4, io.SeekStart, 4},
		{"forth", 2, io.SeekCurrent, 5},
		{"back", -2, io.SeekCurrent, 1},
		{"end", -3, io.SeekEnd, 7},
		{"the very end", 0, io.SeekEnd, 10},
		{"past the end", 5, io.SeekEnd, 15},
		{"before the start", -1, io.SeekStart, -1},
		{"back before the start", -4, io.SeekCurrent, -1},
		{"an unknown origin", 0, 3, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			blob := mustStoreBlob(t, f, data)
			_, err := io.ReadFull(blob, make([]byte, 3))
			require.NoError(t, err)
			at, err := blob.Seek(tt.offset, tt.whence)
			want := tt.want
			if want < 0 {
				require.Error(t, err)
				want = 3 // a refused seek moves nothing
			} else {
				require.NoError(t, err)
				require.Equal(t, want, at)
			}
			rest, err := io.ReadAll(blob)
			require.NoError(t, err)
			require.Equal(t, string(data[min(want, 10):]), string(rest))
		})
	}
}

func TestBlobReadTwiceFromTheStart(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	data := bytesOf(100_000, 1)
	blob := mustStoreBlob(t, f, data)
	for range 3 {
		_, err := io.CopyN(io.Discard, blob, 777)
		require.NoError(t, err)
		_, err = blob.Seek(0, io.SeekStart)
		require.NoError(t, err)
		got, err := io.ReadAll(blob)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		_, err = blob.Seek(-500, io.SeekCurrent)
		require.NoError(t, err)
		got, err = io.ReadAll(blob)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data[len(data)-500:], got))
		_, err = blob.Seek(0, io.SeekStart)
		require.NoError(t, err)
	}
}

func TestBlobWriteTo(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	for _, size := range []int{0, 1, 1 << 20, 3<<20 + 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := bytesOf(size, 1)
			blob := mustStoreBlob(t, f, data)
			skipped := size / 3
			_, err := io.ReadFull(blob, make([]byte, skipped))
			require.NoError(t, err)
			var out bytes.Buffer
			n, err := blob.WriteTo(&out)
			require.NoError(t, err)
			require.EqualValues(t, size-skipped, n)
			require.True(t, bytes.Equal(data[skipped:], out.Bytes()), "what was left")
			n, err = blob.WriteTo(&out)
			require.NoError(t, err)
			require.Zero(t, n)
		})
	}
}

func TestEmptyBlob(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	blob := mustStoreBlob(t, f, nil)
	require.Zero(t, blob.Size())
	n, err := blob.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	for range 2 {
		n, err := blob.Read(make([]byte, 10))
		require.Equal(t, io.EOF, err)
		require.Zero(t, n)
	}
	_, err = blob.ReadAt(make([]byte, 1), 0)
	require.Equal(t, io.EOF, err)
	at, err := blob.Seek(0, io.SeekEnd)
	require.NoError(t, err)
	require.Zero(t, at)
}

func TestBlobOutlivesItsReferenceAndItsStore(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	data := bytesOf(2<<20, 1)
	ref := mustStore(t, f, data, storage.MediaMetadata{})
	kept := mustStore(t, f, data, storage.MediaMetadata{})
	deleted, ofClosed := mustOpenBlob(t, f, ref), mustOpenBlob(t, f, kept)
	_, err := io.ReadFull(deleted, make([]byte, 1000))
	require.NoError(t, err)

	require.NoError(t, f.Delete(ctx, ref))
	rest, err := io.ReadAll(deleted)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data[1000:], rest))
	_, err = f.Open(ctx, ref)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.NotErrorIs(t, err, storage.ErrCorrupted)

	require.NoError(t, f.Close())
	part := make([]byte, 500)
	_, err = ofClosed.ReadAt(part, 1<<20)
	require.NoError(t, err)
	require.Equal(t, data[1<<20:1<<20+500], part)
	all, err := io.ReadAll(ofClosed)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, all))
}

// The last byte of damaged bytes is never handed over, and none at all where
// the read does not begin at the start.
func TestBlobShowsDamageBeforeTheLastByte(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	data := bytesOf(100_000, 1)
	ref := mustStore(t, f, data, storage.MediaMetadata{})
	name := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
	bad := bytes.Clone(data)
	bad[50_000] ^= 1
	require.NoError(t, os.WriteFile(name, bad, 0o600))

	reads := map[string]func(*engine.Blob) (int64, error){
		"WriteTo": func(b *engine.Blob) (int64, error) { return b.WriteTo(io.Discard) },
		"Read byte by byte": func(b *engine.Blob) (int64, error) {
			return io.Copy(io.Discard, iotest.OneByteReader(struct{ io.Reader }{b}))
		},
		"Read of everything at once": func(b *engine.Blob) (int64, error) {
			n, err := b.Read(make([]byte, len(data)+1))
			return int64(n), err
		},
	}
	for way, read := range reads {
		n, err := read(mustOpenBlob(t, f, ref))
		require.ErrorIs(t, err, storage.ErrCorrupted, way)
		require.Less(t, n, int64(len(data)), way)
		requireSentinel(t, err, config.BaseDir)
		require.ErrorContains(t, err, ref.ID, way)
		require.ErrorContains(t, err, ref.Metadata["path"], way)
	}
	blob := mustOpenBlob(t, f, ref)
	for range 2 {
		n, err := blob.ReadAt(make([]byte, 10), 7)
		require.ErrorIs(t, err, storage.ErrCorrupted)
		require.Zero(t, n)
	}
	blob = mustOpenBlob(t, f, ref)
	_, err := blob.Seek(90_000, io.SeekStart)
	require.NoError(t, err)
	n, err := blob.Read(make([]byte, 10))
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.Zero(t, n)
	_, err = f.Retrieve(ctx, ref)
	require.ErrorIs(t, err, storage.ErrCorrupted)

	require.NoError(t, os.WriteFile(name, data, 0o600))
	require.NoError(t, wantBytes(f, ref, data))
}

func TestBlobThroughServeContent(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	data := bytesOf(200_000, 1)
	created := time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)
	ref, err := f.StoreReader(context.Background(), bytes.NewReader(data),
		storage.MediaInfo{MimeType: "video/mp4"}, storage.MediaMetadata{CreatedAt: created})
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blob, err := f.Open(r.Context(), &storage.StorageReference{ID: r.URL.Path[1:]})
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer func() { _ = blob.Close() }() // was only read
		w.Header().Set("Content-Type", blob.MimeType())
		w.Header().Set("ETag", `"`+blob.Digest().String()+`"`)
		http.ServeContent(w, r, "", blob.CreatedAt(), blob)
	}))
	defer server.Close()
	get := func(t *testing.T, path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, server.URL+"/"+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp, body
	}
	t.Run("whole", func(t *testing.T) {
		resp, body := get(t, ref.ID)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, "video/mp4", resp.Header.Get("Content-Type"))
		require.Equal(t, "Wed, 06 May 2020 07:08:09 GMT", resp.Header.Get("Last-Modified"))
		require.True(t, bytes.Equal(data, body))
	})
	for ask, want := range map[string][]byte{
		"bytes=0-99": data[:100], "bytes=199990-": data[199_990:], "bytes=-5": data[199_995:], "bytes=70000-70000": data[70_000:70_001],
	} {
		t.Run(ask, func(t *testing.T) {
			resp, body := get(t, ref.ID, "Range", ask)
			require.Equal(t, http.StatusPartialContent, resp.StatusCode)
			require.True(t, bytes.Equal(want, body))
		})
	}
	t.Run("two ranges", func(t *testing.T) {
		resp, body := get(t, ref.ID, "Range", "bytes=10-19,100000-100009")
		require.Equal(t, http.StatusPartialContent, resp.StatusCode)
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		require.NoError(t, err)
		parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for _, want := range [][]byte{data[10:20], data[100_000:100_010]} {
			part, err := parts.NextPart()
			require.NoError(t, err)
			got, err := io.ReadAll(part)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
	t.Run("past the end", func(t *testing.T) {
		resp, _ := get(t, ref.ID, "Range", "bytes=200000-")
		require.Equal(t, http.StatusRequestedRangeNotSatisfiable, resp.StatusCode)
	})
	t.Run("known already", func(t *testing.T) {
		resp, body := get(t, ref.ID, "If-None-Match", `"`+ref.Metadata["sha256"]+`"`)
		require.Equal(t, http.StatusNotModified, resp.StatusCode)
		require.Empty(t, body)
	})
	t.Run("unknown", func(t *testing.T) {
		resp, _ := get(t, "nothing")
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	})
}
