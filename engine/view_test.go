package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// views are the modes of a file system, the store's own included.
var views = append(storage.OrganizationModes(), "")

// viewIDs are IDs of directories: ordinary, hostile, missing, and too long for one.
var viewIDs = []string{"a", "b", "", "..", "a/b", "no-session", "no-run", "CON", "会話", strings.Repeat("x", 300), strings.Repeat("x", 299) + "/"}

// populated is a store in which references share blobs across sessions, and those
// references by ID. The organization of its blobs changes on the way.
func populated(t *testing.T, ids []string) (*engine.FileStore, map[string]*modelRef, map[string][]byte) {
	t.Helper()
	ctx := context.Background()
	refs, bytesByID := map[string]*modelRef{}, map[string][]byte{}
	dir := t.TempDir()
	var f *engine.FileStore
	for i, mode := range storage.OrganizationModes() {
		f = mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: i%2 == 0, Organization: mode, Sync: engine.SyncNone})
		for n := range 25 {
			ref := &modelRef{
				info: storage.MediaInfo{Type: "image", MimeType: []string{"image/png", "audio/mpeg", "application/x-of-our-own"}[n%3]},
				meta: storage.MediaMetadata{
					SessionID: ids[n%len(ids)], ConversationID: ids[(n*n+i)%len(ids)], RunID: ids[(n/2)%len(ids)],
					CreatedAt: time.Date(2026, 3, 1, i, n, 0, 1000, time.UTC),
				},
			}
			data := bytesOf(n%7*1000, byte(n%5))
			stored, err := f.StoreReader(ctx, bytes.NewReader(data), ref.info, ref.meta)
			require.NoError(t, err)
			refs[stored.ID], bytesByID[stored.ID] = ref, data
		}
		if i < 3 {
			require.NoError(t, f.Close())
		}
	}
	return f, refs, bytesByID
}

// Every reference is at its own path in every view, and nothing else is.
func TestFS(t *testing.T) {
	f, refs, data := populated(t, viewIDs)
	for _, view := range views {
		t.Run("view="+string(view), func(t *testing.T) {
			fsys := f.FS(view)
			want := map[string]bool{}
			dirs := map[string]bool{".": true}
			for id := range refs {
				want[id] = true
			}
			require.NoError(t, fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
				require.NoError(t, err)
				if d.IsDir() {
					dirs[name] = true
					return nil
				}
				stem, ext, _ := strings.Cut(d.Name(), ".")
				require.True(t, want[stem], name)
				delete(want, stem)
				delete(dirs, path.Dir(name))
				require.Equal(t, modelExtensions[refs[stem].info.MimeType], "."+ext)
				info, err := d.Info()
				require.NoError(t, err)
				require.Equal(t, refs[stem].meta.CreatedAt, info.ModTime())
				require.Equal(t, stem, info.Sys().(engine.Entry).Reference.ID)
				got, err := fs.ReadFile(fsys, name)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data[stem], got), name)
				return nil
			}))
			require.Empty(t, want)
			for dir := range dirs {
				entries, err := fs.ReadDir(fsys, dir)
				require.NoError(t, err)
				require.NotEmpty(t, entries, "no empty directory: %s", dir)
			}
		})
	}
	require.Equal(t, entriesOf(t, f.FS(storage.OrganizationByRun), "."), entriesOf(t, f.FS(""), "."), "the store's own mode")
}

func entriesOf(t *testing.T, fsys fs.FS, dir string) (names []string) {
	t.Helper()
	entries, err := fs.ReadDir(fsys, dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// The standard library's own test of a file system, which opens, reads and lists
// in every way.
func TestFSByTheStandardLibrary(t *testing.T) {
	t.Parallel()
	f, refs, _ := populated(t, []string{"a", "b", "", "a/b"})
	for _, view := range views {
		t.Run("view="+string(view), func(t *testing.T) {
			fsys := f.FS(view)
			var names []string
			require.NoError(t, fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					names = append(names, name)
				}
				return err
			}))
			require.Len(t, names, len(refs))
			require.NoError(t, fstest.TestFS(fsys, names...))
		})
	}
	empty := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	for _, view := range views {
		require.NoError(t, fstest.TestFS(empty.FS(view)))
	}
}

func TestFSInPages(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	const n = 600 // more than two of the pages that are read at a time
	for i := range n {
		mustStore(t, f, []byte{byte(i)}, storage.MediaMetadata{SessionID: fmt.Sprint("s", i), ConversationID: "c"})
	}
	for view, dir := range map[storage.OrganizationMode]string{
		storage.OrganizationFlat: ".", storage.OrganizationBySession: ".", storage.OrganizationByConversation: "c",
	} {
		file, err := f.FS(view).Open(dir)
		require.NoError(t, err)
		seen := map[string]bool{}
		for {
			list, err := file.(fs.ReadDirFile).ReadDir(7)
			for _, e := range list {
				require.False(t, seen[e.Name()], "%s comes twice", e.Name())
				seen[e.Name()] = true
			}
			if errors.Is(err, io.EOF) {
				require.Empty(t, list)
				break
			}
			require.NoError(t, err)
		}
		require.Len(t, seen, n, "%s of %s", dir, view)
		require.NoError(t, file.Close())
		_, err = file.(fs.ReadDirFile).ReadDir(1)
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, file.Close(), fs.ErrClosed)
	}
}

func TestFSRefuses(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	ref := mustStore(t, f, []byte("x"), storage.MediaMetadata{SessionID: "s", ConversationID: "c"})
	fsys := f.FS(storage.OrganizationBySession)
	name := ref.ID + ".bin"
	for _, bad := range []string{"nobody", "s/nobody", "s/c/" + ref.ID, "s/c/" + ref.ID + ".png", "s/c/x", "s/" + name, name, "s/c/" + name + "/x", "%73/c", "no-session", "s/no-conversation",
		strings.Repeat("x", 86) + "%h" + strings.Repeat("0", 32), "s/" + strings.Repeat("x", 86) + "%h" + strings.Repeat("0", 32)} {
		_, err := fsys.Open(bad)
		require.ErrorIs(t, err, fs.ErrNotExist, bad)
		_, err = fs.Stat(fsys, bad)
		require.ErrorIs(t, err, fs.ErrNotExist, bad)
		_, err = fs.ReadDir(fsys, bad)
		require.ErrorIs(t, err, fs.ErrNotExist, bad)
	}
	for _, bad := range []string{"", "/", "/s", "s/", "..", "s/../s", "./s", "s//c"} {
		_, err := fsys.Open(bad)
		require.ErrorIs(t, err, fs.ErrInvalid, bad)
	}
	_, err := fs.ReadDir(fsys, "s/c/"+name)
	require.ErrorContains(t, err, "not a directory")
	_, err = f.FS("by-moon").Open(".")
	require.ErrorIs(t, err, storage.ErrInvalidConfig)
	require.ErrorContains(t, err, "by-moon")

	dir, err := fsys.Open("s")
	require.NoError(t, err)
	_, err = dir.Read(make([]byte, 1))
	require.ErrorContains(t, err, "is a directory")
	file, err := fsys.Open("s/c/" + name)
	require.NoError(t, err)
	require.NoError(t, f.Delete(context.Background(), ref))
	got, err := io.ReadAll(file)
	require.NoError(t, err, "what is open stays readable")
	require.Equal(t, "x", string(got))
	require.NoError(t, file.Close())
	_, err = fs.Stat(fsys, "s")
	require.ErrorIs(t, err, fs.ErrNotExist, "it was the last")
	require.NoError(t, f.Close())
	_, err = fsys.Open("s")
	require.ErrorIs(t, err, storage.ErrClosed)
	_, err = dir.(fs.ReadDirFile).ReadDir(-1)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.NoError(t, dir.Close())
}

// A file that was damaged is an error in every view, not bytes.
func TestFSVerifies(t *testing.T) {
	dir := t.TempDir()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone})
	require.NoError(t, err)
	ref := mustStore(t, f, bytesOf(1000, 1), storage.MediaMetadata{})
	data := bytesOf(1000, 1)
	data[500] ^= 1
	require.NoError(t, os.WriteFile(path.Join(dir, ref.Metadata["path"]), data, 0o600))
	_, err = fs.ReadFile(f.FS(storage.OrganizationFlat), ref.ID+".bin")
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.NoError(t, f.Close())
}

func TestFSOverHTTP(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	data := bytesOf(10_000, 1)
	ref, err := f.StoreReader(context.Background(), bytes.NewReader(data), storage.MediaInfo{MimeType: "image/png"}, storage.MediaMetadata{SessionID: "s", ConversationID: "a b"})
	require.NoError(t, err)
	server := httptest.NewServer(http.FileServerFS(f.FS(storage.OrganizationBySession)))
	defer server.Close()
	get := func(name, ranges string) (*http.Response, []byte) {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, server.URL+name, nil)
		require.NoError(t, err)
		if ranges != "" {
			request.Header.Set("Range", ranges)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response, body
	}
	response, body := get("/s/a%20b/"+ref.ID+".png", "")
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "image/png", response.Header.Get("Content-Type"))
	require.True(t, bytes.Equal(data, body))
	response, body = get("/s/a%20b/"+ref.ID+".png", "bytes=100-199")
	require.Equal(t, http.StatusPartialContent, response.StatusCode)
	require.True(t, bytes.Equal(data[100:200], body))
	_, body = get("/s/", "")
	require.Contains(t, string(body), `href="a%20b/"`)
	response, _ = get("/s/nothing", "")
	require.Equal(t, http.StatusNotFound, response.StatusCode)
}

func TestFSInAnArchive(t *testing.T) {
	f, refs, data := populated(t, []string{"a", "b", ""})
	for _, view := range views {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		require.NoError(t, w.AddFS(f.FS(view)))
		require.NoError(t, w.Close())
		files := 0
		for r := tar.NewReader(&archive); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if header.Typeflag == tar.TypeDir {
				continue
			}
			stem, _, _ := strings.Cut(path.Base(header.Name), ".")
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data[stem], got))
			require.WithinDuration(t, refs[stem].meta.CreatedAt, header.ModTime, time.Second)
			files++
		}
		require.Equal(t, len(refs), files)
	}
}
