package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// media is the directory of the sample media.
const media = "../testdata/media"

func TestDataInEveryForm(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	// These bytes need both characters in which the alphabets differ, and
	// padding.
	raw := []byte{0xfb, 0xff, 0xbf, 0x00}
	tests := []struct {
		name, data string
		want       []byte
		mimeType   string // "": not looked at
	}{
		{"standard", "+/+/AA==", raw, ""},
		{"unpadded", "+/+/AA", raw, ""},
		{"URL-safe", "-_-_AA==", raw, ""},
		{"URL-safe, unpadded", "-_-_AA", raw, ""},
		{"line breaks", "+/+/\r\nAA\n==\n", raw, ""},
		{"indented", "\t +/+/ AA==  ", raw, ""},
		{"data URL", "data:image/gif;base64,+/+/AA==", raw, "image/gif"},
		{"data URL in upper case", "DATA:IMAGE/GIF;BASE64,+/+/AA==", raw, "IMAGE/GIF"},
		{"data URL, URL-safe and unpadded", "data:image/gif;base64,-_-_AA", raw, "image/gif"},
		{"data URL with parameters", "data:text/plain;charset=utf-8;base64,+/+/AA==", raw, "text/plain;charset=utf-8"},
		{"data URL, percent-encoded base64", "data:image/gif;base64,%2B%2F%2b%2fAA%3D%3D", raw, "image/gif"},
		{"data URL with line breaks", "data:image/gif;base64,+/+/\r\nAA==", raw, "image/gif"},
		{"data URL of text", "data:text/html,%3Cp%3Ehello+there%3C/p%3E", []byte("<p>hello+there</p>"), "text/html"},
		{"data URL of bytes", "data:application/octet-stream,%FB%ff%Bf%00", raw, "application/octet-stream"},
		{"data URL of text with a comma", "data:text/csv,a,b", []byte("a,b"), "text/csv"},
		{"data URL without a MIME type", "data:,hi", []byte("hi"), "text/plain"},
		{"data URL with a parameter alone", "data:;charset=utf-8,hi", []byte("hi"), "text/plain;charset=utf-8"},
		{"data URL of nothing", "data:image/gif;base64,", nil, "image/gif"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ref, err := f.Store(context.Background(), &storage.MediaContent{Data: tt.data}, storage.MediaMetadata{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(tt.want, mustRetrieve(t, f, ref)), "got %x, want %x", mustRetrieve(t, f, ref), tt.want)
			if tt.mimeType != "" {
				require.Equal(t, tt.mimeType, ref.Metadata["mime_type"])
			}
		})
	}
}

func TestDeclaredMimeTypeWinsOverTheDataURLs(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	ref, err := f.Store(context.Background(),
		&storage.MediaContent{MimeType: "image/webp", Data: "data:image/gif;base64,AAAA"}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Equal(t, "image/webp", ref.Metadata["mime_type"])
	require.Equal(t, ".webp", path.Ext(ref.Metadata["path"]))
	require.Equal(t, "image", ref.Metadata["type"])
}

// mkfifo makes a named pipe, where this machine can.
func mkfifo(t testing.TB, name string) {
	t.Helper()
	if out, err := exec.Command("mkfifo", name).CombinedOutput(); err != nil {
		skip.Proof(t, fmt.Sprintf("mkfifo: %v: %s", err, out))
	}
}

func TestFilePath(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	dir := t.TempDir()
	file := filepath.Join(dir, "file.txt")
	require.NoError(t, os.WriteFile(file, []byte("of the caller"), 0o600))
	store := func(name string) (*storage.StorageReference, error) {
		return f.Store(ctx, &storage.MediaContent{FilePath: name}, storage.MediaMetadata{})
	}
	stores := func(t *testing.T, name, want string) {
		t.Helper()
		ref, err := store(name)
		require.NoError(t, err)
		require.Equal(t, want, string(mustRetrieve(t, f, ref)))
		require.NoError(t, f.Delete(ctx, ref))
		onDisk, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, string(onDisk), "the caller's file stays")
	}
	refuses := func(t *testing.T, name string) error {
		t.Helper()
		_, err := store(name)
		require.ErrorIs(t, err, storage.ErrInvalidMedia)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, config.BaseDir)
		requireEmpty(t, f, config.BaseDir)
		return err
	}
	t.Run("absolute", func(t *testing.T) { stores(t, file, "of the caller") })
	t.Run("relative", func(t *testing.T) {
		t.Chdir(dir)
		stores(t, "file.txt", "of the caller")
	})
	t.Run("empty file", func(t *testing.T) {
		empty := filepath.Join(dir, "empty")
		require.NoError(t, os.WriteFile(empty, nil, 0o600))
		stores(t, empty, "")
	})
	t.Run("symbolic link", func(t *testing.T) {
		link := filepath.Join(dir, "link")
		if err := os.Symlink(file, link); err != nil {
			skip.Proof(t, err.Error())
		}
		stores(t, link, "of the caller")
	})
	t.Run("larger than what is held in memory", func(t *testing.T) {
		large := filepath.Join(dir, "large")
		data := bytesOf(2<<20, 1)
		require.NoError(t, os.WriteFile(large, data, 0o600))
		stores(t, large, string(data))
	})
	t.Run("directory", func(t *testing.T) { refuses(t, dir) })
	t.Run("missing", func(t *testing.T) {
		err := refuses(t, filepath.Join(dir, "missing"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NotErrorIs(t, err, storage.ErrNotFound, "that is of references")
	})
	t.Run("named pipe", func(t *testing.T) {
		fifo := filepath.Join(dir, "fifo")
		mkfifo(t, fifo)
		refuses(t, fifo)
	})
	t.Run("name with NUL", func(t *testing.T) {
		_, err := store("a\x00b")
		requireSentinel(t, err, config.BaseDir)
	})
}

func TestContentThatCannotBeStored(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	tests := []struct {
		name    string
		content *storage.MediaContent
		says    string
	}{
		{"nil", nil, "no content"},
		{"neither Data nor FilePath", &storage.MediaContent{Type: "image"}, "neither"},
		{"both Data and FilePath", &storage.MediaContent{Data: "AAAA", FilePath: "x"}, "both"},
		{"data URL without a comma", &storage.MediaContent{Data: "data:image/png;base64"}, "comma"},
		{"data URL with a broken escape", &storage.MediaContent{Data: "data:text/plain,%zz"}, "%zz"},
		{"data URL with a broken escape in its base64", &storage.MediaContent{Data: "data:;base64,AA%3"}, "%3"},
		{"MIME type that is none", &storage.MediaContent{Data: "AAAA", MimeType: "image/png; x"}, "image/png; x"},
		{"MIME type of a data URL that is none", &storage.MediaContent{Data: "data:im age/png;base64,AAAA"}, "im age"},
		{"MIME type with a line break", &storage.MediaContent{Data: "AAAA", MimeType: "text/plain;\r\n a=b"}, "control"},
		{"MIME type that is too long", &storage.MediaContent{Data: "AAAA", MimeType: "a/" + strings.Repeat("b", 254)}, "256 bytes"},
		{"type with a control character", &storage.MediaContent{Data: "AAAA", Type: "ima\x1bge"}, "control"},
		{"type that is too long", &storage.MediaContent{Data: "AAAA", Type: strings.Repeat("t", 65)}, "65 bytes"},
		{"type that is no UTF-8", &storage.MediaContent{Data: "AAAA", Type: "\xff"}, "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.Store(ctx, tt.content, storage.MediaMetadata{})
			require.ErrorIs(t, err, storage.ErrInvalidMedia)
			require.ErrorContains(t, err, tt.says)
			requireEmpty(t, f, config.BaseDir)
		})
	}
	t.Run("no reader", func(t *testing.T) {
		_, err := f.StoreReader(ctx, nil, storage.MediaInfo{}, storage.MediaMetadata{})
		require.ErrorIs(t, err, storage.ErrInvalidMedia)
	})
	t.Run("stream with a bad MIME type", func(t *testing.T) {
		_, err := f.StoreReader(ctx, bytes.NewReader(bytesOf(2<<20, 1)), storage.MediaInfo{MimeType: "//"}, storage.MediaMetadata{})
		require.ErrorIs(t, err, storage.ErrInvalidMedia)
		requireEmpty(t, f, config.BaseDir)
	})
}

// Around the sizes at which a stream is spooled, and at which a vectorised
// decoder changes its step, every way in keeps the same bytes.
func TestSizesByEveryWayIn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const inline = 1 << 20
	for _, size := range []int{0, 1, 2, 3, 47, 48, 49, 255, 256, 257, inline - 1, inline, inline + 1, inline + 2, 3*inline + 17} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
			f := mustOpen(t, config)
			data := bytesOf(size, byte(size))
			name := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(name, data, 0o600))
			ways := []func() (*storage.StorageReference, error){
				func() (*storage.StorageReference, error) { return f.Store(ctx, content(data), storage.MediaMetadata{}) },
				func() (*storage.StorageReference, error) {
					return f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{}, storage.MediaMetadata{})
				},
				func() (*storage.StorageReference, error) {
					return f.Store(ctx, &storage.MediaContent{FilePath: name}, storage.MediaMetadata{})
				},
			}
			for _, first := range ways {
				ref, err := first()
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(size), ref.Metadata["size"])
				require.True(t, bytes.Equal(data, mustRetrieve(t, f, ref)))
				for _, second := range ways {
					dup, err := second()
					require.NoError(t, err)
					require.Equal(t, ref.Metadata["path"], dup.Metadata["path"])
					require.NoError(t, f.Delete(ctx, dup))
				}
				require.Len(t, blobFiles(t, config.BaseDir), 1)
				require.NoError(t, wantBytes(f, ref, data))
				require.NoError(t, f.Delete(ctx, ref))
				requireEmpty(t, f, config.BaseDir)
			}
		})
	}
}

func TestRealMediaIsRecognised(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	tests := []struct{ file, kind, mimeType string }{
		{"sunrise.png", "image", "image/png"},
		{"sunrise.jpg", "image", "image/jpeg"},
		{"tone.wav", "audio", "audio/wav"},
		{"tone.mp3", "audio", "audio/mpeg"},
		{"tone.ogg", "audio", "audio/ogg"},
		{"clip.mp4", "video", "video/mp4"},
		{"letter.pdf", "document", "application/pdf"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			name := filepath.Join(media, tt.file)
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			for way, c := range map[string]*storage.MediaContent{
				"file": {FilePath: name}, "base64": {Data: base64.StdEncoding.EncodeToString(data)},
			} {
				ref, err := f.Store(ctx, c, storage.MediaMetadata{})
				require.NoError(t, err, way)
				require.Equal(t, tt.mimeType, ref.Metadata["mime_type"], way)
				require.Equal(t, tt.kind, ref.Metadata["type"], way)
				require.Equal(t, path.Ext(tt.file), path.Ext(ref.Metadata["path"]), way)
				got, err := f.Retrieve(ctx, ref)
				require.NoError(t, err)
				require.Equal(t, storage.MediaContent{
					Type: tt.kind, MimeType: tt.mimeType, Data: base64.StdEncoding.EncodeToString(data),
				}, *got, way)
			}
			t.Run("declared otherwise", func(t *testing.T) {
				ref, err := f.Store(ctx, &storage.MediaContent{Type: "blueprint", MimeType: "image/avif", FilePath: name}, storage.MediaMetadata{})
				require.NoError(t, err)
				require.Equal(t, "image/avif", ref.Metadata["mime_type"])
				require.Equal(t, "blueprint", ref.Metadata["type"])
				require.Equal(t, ".avif", path.Ext(ref.Metadata["path"]))
			})
		})
	}
}

func TestExtensionOfWhatNobodyKnows(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	for mimeType, ext := range map[string]string{
		"application/x-unheard-of": ".bin", "image/../../x": ".bin", "text/plain; charset=utf-8": ".txt", "Image/PNG": ".png",
	} {
		ref, err := f.Store(context.Background(), &storage.MediaContent{Data: "AAAA", MimeType: mimeType}, storage.MediaMetadata{})
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidMedia, mimeType)
			continue
		}
		require.Equal(t, ext, path.Ext(ref.Metadata["path"]), mimeType)
	}
	ref, err := f.Store(context.Background(), &storage.MediaContent{Data: base64.StdEncoding.EncodeToString(bytesOf(1000, 9))}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Equal(t, "application/octet-stream", ref.Metadata["mime_type"])
	require.Equal(t, "document", ref.Metadata["type"])
}

// stutter is a reader that often answers 0, nil, which io.Reader allows.
type stutter struct {
	r    io.Reader
	turn int
}

func (s *stutter) Read(p []byte) (int, error) {
	if s.turn++; s.turn%3 != 0 {
		return 0, nil
	}
	return s.r.Read(p[:min(len(p), 50_000)])
}

func TestStreamsOfEveryManner(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone})
	manners := map[string]func(io.Reader) io.Reader{
		"data together with EOF": iotest.DataErrReader,
		"half of what is asked":  iotest.HalfReader,
		"0, nil now and then":    func(r io.Reader) io.Reader { return &stutter{r: r} },
		"that writes itself":     func(r io.Reader) io.Reader { return r },
	}
	for name, manner := range manners {
		for _, size := range []int{0, 5, 1 << 20, 1<<20 + 1, 2<<20 + 5} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				data := bytesOf(size, 1)
				ref, err := f.StoreReader(ctx, manner(bytes.NewReader(data)), storage.MediaInfo{}, storage.MediaMetadata{})
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, mustRetrieve(t, f, ref)))
			})
		}
	}
	t.Run("one byte at a time", func(t *testing.T) {
		data := bytesOf(5000, 1)
		ref, err := f.StoreReader(ctx, iotest.OneByteReader(bytes.NewReader(data)), storage.MediaInfo{}, storage.MediaMetadata{})
		require.NoError(t, err)
		require.Equal(t, data, mustRetrieve(t, f, ref))
	})
}

// failing is a stream that fails once, and then claims to be at its end.
type failing struct {
	data []byte
	err  error
	// together: the error comes with the last of the data, not after it.
	together bool
}

func (f *failing) Read(p []byte) (n int, err error) {
	n = copy(p, f.data)
	f.data = f.data[n:]
	switch {
	case len(f.data) > 0, n > 0 && !f.together:
		return n, nil
	case f.err == nil:
		return n, io.EOF
	}
	err, f.err = f.err, nil
	return n, err
}

// A stream that ends in an error was not whole, whatever the error: the body of
// an HTTP request that breaks off ends in io.ErrUnexpectedEOF.
func TestStreamsThatFailLeaveNothing(t *testing.T) {
	for _, cause := range []error{
		errors.New("the line went dead"), io.ErrUnexpectedEOF, io.ErrClosedPipe, fs.ErrNotExist,
		fmt.Errorf("part 3 of 5: %w", io.EOF), fmt.Errorf("body: %w", io.ErrUnexpectedEOF), &http.MaxBytesError{Limit: 5},
	} {
		for how, limits := range map[string]engine.FileStoreConfig{
			"": {}, ", limited": {Quota: engine.Quota{TotalBytes: 1 << 30}, MinFreeBytes: 1},
		} {
			t.Run(cause.Error()+how, func(t *testing.T) {
				config := limits
				config.BaseDir, config.EnableDeduplication, config.Sync = t.TempDir(), true, engine.SyncNone
				f := mustOpen(t, config)
				for _, size := range []int{0, 1000, 1 << 20, 1<<20 + 1, 2 << 20} {
					for _, together := range []bool{false, true} {
						stream := &failing{data: bytesOf(size, 1), err: cause, together: together}
						_, err := f.StoreReader(context.Background(), stream, storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s"})
						require.ErrorIs(t, err, cause, "after %d bytes, together=%t", size, together)
						require.ErrorIs(t, err, storage.ErrInvalidMedia)
						require.ErrorContains(t, err, config.BaseDir)
						requireEmpty(t, f, config.BaseDir)
					}
				}
			})
		}
	}
}

func TestMetadataBounds(t *testing.T) {
	labels := func(n, value int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("k%03d", i)] = strings.Repeat("v", value)
		}
		return m
	}
	id := strings.Repeat("i", storage.MaxIDLength)
	tests := []struct {
		name   string
		within *storage.MediaMetadata // nil: there is nothing that is just allowed
		past   storage.MediaMetadata
		says   string
	}{
		{"conversation ID", &storage.MediaMetadata{ConversationID: id}, storage.MediaMetadata{ConversationID: id + "i"}, "conversation ID"},
		{"session ID", &storage.MediaMetadata{SessionID: id}, storage.MediaMetadata{SessionID: id + "i"}, "session ID"},
		{"run ID", &storage.MediaMetadata{RunID: id}, storage.MediaMetadata{RunID: id + "i"}, "run ID"},
		{"user ID", &storage.MediaMetadata{UserID: id}, storage.MediaMetadata{UserID: id + "i"}, "user ID"},
		{"ID that is no UTF-8", nil, storage.MediaMetadata{SessionID: "a\xffb"}, "UTF-8"},
		{"number of labels", &storage.MediaMetadata{Labels: labels(64, 1)}, storage.MediaMetadata{Labels: labels(65, 1)}, "65 labels"},
		{"all labels together", &storage.MediaMetadata{Labels: labels(64, 252)}, storage.MediaMetadata{Labels: labels(64, 253)}, "16448"},
		{
			"label key", &storage.MediaMetadata{Labels: map[string]string{strings.Repeat("k", 128): ""}},
			storage.MediaMetadata{Labels: map[string]string{strings.Repeat("k", 129): ""}}, "label key",
		},
		{
			"label value", &storage.MediaMetadata{Labels: map[string]string{"file": strings.Repeat("v", 4096)}},
			storage.MediaMetadata{Labels: map[string]string{"file": strings.Repeat("v", 4097)}}, "label file",
		},
		{"label without a key", nil, storage.MediaMetadata{Labels: map[string]string{"": "v"}}, "key"},
		{"label that is no UTF-8", nil, storage.MediaMetadata{Labels: map[string]string{"k": "\xc3\x28"}}, "UTF-8"},
		{
			"last moment that can be written", &storage.MediaMetadata{CreatedAt: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)},
			storage.MediaMetadata{CreatedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, "year",
		},
		{
			"the same in another time zone", nil,
			storage.MediaMetadata{CreatedAt: time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600))}, "year",
		},
		{
			"first moment", &storage.MediaMetadata{CreatedAt: time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)},
			storage.MediaMetadata{CreatedAt: time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC)}, "year",
		},
		{
			"the same in another time zone, too", nil,
			storage.MediaMetadata{CreatedAt: time.Date(1, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600))}, "year",
		},
		{"negative indexes", &storage.MediaMetadata{MessageIndex: -1 << 63, ContentIndex: 1<<63 - 1}, storage.MediaMetadata{UserID: id + "i"}, "user ID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
			f := mustOpen(t, config)
			_, err := f.Store(context.Background(), content([]byte("x")), tt.past)
			require.ErrorIs(t, err, storage.ErrInvalidMedia)
			require.ErrorContains(t, err, tt.says)
			require.Less(t, len(err.Error()), 1000, "an error is no copy of what was passed")
			requireEmpty(t, f, config.BaseDir)
			if tt.within == nil {
				return
			}
			ref := mustStore(t, f, []byte("x"), *tt.within)
			want := *tt.within
			want.CreatedAt = ref.CreatedAt
			require.Equal(t, want, mustStat(t, f, ref).Metadata)
			require.Empty(t, damage(t, f), "the sidecar has it all, too")
			require.NoError(t, f.Delete(context.Background(), ref))
		})
	}
}
