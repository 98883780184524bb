package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// wav is a WAV file taken apart.
type wav struct {
	channels, bits, frame int
	rate, perSecond       uint32
	samples               []byte
}

// readWAV takes a WAV file apart, and requires that its sizes are right.
func readWAV(t *testing.T, data []byte) wav {
	t.Helper()
	require.Zero(t, len(data)%2)
	require.Equal(t, "RIFF", string(data[:4]))
	require.EqualValues(t, len(data)-8, binary.LittleEndian.Uint32(data[4:]))
	require.Equal(t, "WAVEfmt ", string(data[8:16]))
	require.EqualValues(t, 16, binary.LittleEndian.Uint32(data[16:]))
	require.EqualValues(t, 1, binary.LittleEndian.Uint16(data[20:]))
	require.Equal(t, "data", string(data[36:40]))
	size := int(binary.LittleEndian.Uint32(data[40:]))
	require.Equal(t, len(data), 44+size+size%2)
	return wav{
		channels: int(binary.LittleEndian.Uint16(data[22:])), rate: binary.LittleEndian.Uint32(data[24:]),
		perSecond: binary.LittleEndian.Uint32(data[28:]), frame: int(binary.LittleEndian.Uint16(data[32:])),
		bits: int(binary.LittleEndian.Uint16(data[34:])), samples: data[44 : 44+size],
	}
}

func openPCM(t *testing.T) (*engine.FileStore, string) {
	dir := t.TempDir()
	return mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone, WrapPCM: true}), dir
}

// swapped is samples with the bytes of each in the other order.
func swapped(samples []byte, width int) []byte {
	other := slices.Clone(samples)
	for i := 0; i < len(other); i += width {
		slices.Reverse(other[i : i+width])
	}
	return other
}

// Wrapping the samples of a WAV file that another program made gives that file.
func TestWrapPCMMakesTheFileThatItWas(t *testing.T) {
	f, _ := openPCM(t)
	want, err := os.ReadFile("../testdata/media/tone.wav")
	require.NoError(t, err)
	samples := want[44:]
	for mimeType, data := range map[string][]byte{
		"audio/pcm": samples,
		"audio/pcm; rate=24000; bits=16; channels=1":           samples,
		"audio/pcm;endianness=big-endian":                      swapped(samples, 2),
		"audio/L16":                                            swapped(samples, 2),
		"audio/l16;rate=24000":                                 swapped(samples, 2),
		"audio/L16;rate=24000;endianness=little-endian":        samples,
		"audio/L16;codec=pcm;rate=24000":                       samples,
		"audio/L16;codec=pcm;rate=24000;endianness=big-endian": swapped(samples, 2),
	} {
		given := slices.Clone(data)
		ref, err := f.StoreReader(t.Context(), bytes.NewReader(data), storage.MediaInfo{MimeType: mimeType}, storage.MediaMetadata{})
		require.NoError(t, err, mimeType)
		require.Equal(t, given, data, "what the caller has lent")
		require.Equal(t, want, mustRetrieve(t, f, ref), mimeType)
		e := mustStat(t, f, ref)
		require.Equal(t, []string{"audio", "audio/wav", mimeType}, []string{e.Type, e.MimeType, e.Metadata.Labels[engine.ConvertedFrom]})
		require.Equal(t, mimeType, ref.Metadata[engine.ConvertedFrom])
		require.Equal(t, "audio/wav", ref.Metadata["mime_type"])
		require.Equal(t, ".wav", filepath.Ext(ref.Metadata["path"]))
	}
}

// Samples of any layout, by every way in, of sizes on both sides of what is held
// in memory, are the same blob.
func TestWrapPCMByEveryWayIn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct {
		mimeType string
		want     wav
		width    int // of samples to be turned round; 1: none
		seconds  int
	}{
		{"audio/pcm", wav{1, 16, 2, 24000, 48000, nil}, 1, 1},
		{"audio/pcm;rate=44100;bits=24;channels=2", wav{2, 24, 6, 44100, 264600, nil}, 1, 5},
		{"audio/L16;rate=48000;channels=2", wav{2, 16, 4, 48000, 192000, nil}, 2, 6},
		{"audio/L24;rate=48000;channels=1", wav{1, 24, 3, 48000, 144000, nil}, 3, 11},
		{"audio/pcm;bits=32;channels=6;endianness=big-endian", wav{6, 32, 24, 24000, 576000, nil}, 4, 4},
		{"audio/L8;rate=8000", wav{1, 8, 1, 8000, 8000, nil}, 1, 3},
	} {
		f, dir := openPCM(t)
		frames := int(c.want.rate)*c.seconds - 1 // odd, also in bytes where they have one
		data := bytesOf(frames*c.want.frame, 7)
		c.want.samples = swapped(data, c.width)
		file := filepath.Join(t.TempDir(), "raw")
		require.NoError(t, os.WriteFile(file, data, 0o600))
		text := base64.StdEncoding.EncodeToString(data)
		info := storage.MediaInfo{MimeType: c.mimeType}
		var refs []*storage.StorageReference
		for way, store := range map[string]func() (*storage.StorageReference, error){
			"in memory": func() (*storage.StorageReference, error) {
				return f.StoreReader(ctx, bytes.NewReader(data), info, storage.MediaMetadata{})
			},
			"of unknown length": func() (*storage.StorageReference, error) {
				return f.StoreReader(ctx, io.MultiReader(bytes.NewReader(data)), info, storage.MediaMetadata{})
			},
			"file": func() (*storage.StorageReference, error) {
				return f.Store(ctx, &storage.MediaContent{MimeType: c.mimeType, FilePath: file}, storage.MediaMetadata{})
			},
			"base64": func() (*storage.StorageReference, error) {
				return f.Store(ctx, &storage.MediaContent{MimeType: c.mimeType, Data: text}, storage.MediaMetadata{})
			},
			"data URL": func() (*storage.StorageReference, error) {
				return f.Store(ctx, &storage.MediaContent{Data: "data:" + c.mimeType + ";base64," + text}, storage.MediaMetadata{})
			},
		} {
			ref, err := store()
			require.NoError(t, err, "%s %s", c.mimeType, way)
			require.Equal(t, c.want, readWAV(t, mustRetrieve(t, f, ref)), "%s %s", c.mimeType, way)
			require.Equal(t, c.mimeType, ref.Metadata[engine.ConvertedFrom], way)
			refs = append(refs, ref)
		}
		require.Len(t, blobFiles(t, dir), 1, c.mimeType)
		require.EqualValues(t, len(refs), mustStat(t, f, refs[0]).Refs)
		require.Empty(t, stagedFiles(t, f, dir))
	}
}

func TestWrapPCMLeavesOthersAlone(t *testing.T) {
	f, _ := openPCM(t)
	for _, mimeType := range []string{"", "audio/wav", "audio/mpeg", "audio/basic", "application/octet-stream"} {
		ref, err := f.StoreReader(t.Context(), bytes.NewReader(small), storage.MediaInfo{MimeType: mimeType}, storage.MediaMetadata{})
		require.NoError(t, err)
		require.Equal(t, small, mustRetrieve(t, f, ref))
		require.NotContains(t, ref.Metadata, engine.ConvertedFrom)
		require.NotContains(t, mustStat(t, f, ref).Metadata.Labels, engine.ConvertedFrom)
	}
	off := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	ref, err := off.StoreReader(t.Context(), bytes.NewReader(small), storage.MediaInfo{MimeType: "audio/pcm"}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Equal(t, small, mustRetrieve(t, off, ref))
	require.Equal(t, "audio/pcm", ref.Metadata["mime_type"])
}

// An empty recording is a WAV file without samples.
func TestWrapPCMOfNothing(t *testing.T) {
	f, _ := openPCM(t)
	ref, err := f.StoreReader(t.Context(), strings.NewReader(""), storage.MediaInfo{MimeType: "audio/L16;rate=8000"}, storage.MediaMetadata{})
	require.NoError(t, err)
	require.Equal(t, wav{1, 16, 2, 8000, 16000, []byte{}}, readWAV(t, mustRetrieve(t, f, ref)))
}

// What cannot be wrapped is refused, with what is wrong with it, and leaves
// nothing.
func TestWrapPCMRefuses(t *testing.T) {
	dir := t.TempDir()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone, WrapPCM: true, MaxFileSize: 2 << 20})
	labels := map[string]string{engine.ConvertedFrom: "mine"}
	many := map[string]string{}
	for i := range storage.MaxLabels {
		many[strings.Repeat("x", i+1)] = ""
	}
	large := bytesOf(2<<20-2, 1)
	for _, c := range []struct {
		mimeType string
		data     []byte
		labels   map[string]string
		is       error
		says     string
	}{
		{"audio/pcm", small[:5], nil, storage.ErrInvalidMedia, "frames have 2 bytes"},
		{"audio/pcm", large[:1<<20+5], nil, storage.ErrInvalidMedia, "frames have 2 bytes"},
		{"audio/L16;channels=2", small[:6], nil, storage.ErrInvalidMedia, "frames have 4 bytes"},
		{"audio/pcm;rate=0", small, nil, storage.ErrInvalidMedia, `rate="0"`},
		{"audio/pcm;rate=99999999999", small, nil, storage.ErrInvalidMedia, "rate="},
		{"audio/pcm;channels=-1", small, nil, storage.ErrInvalidMedia, "channels="},
		{"audio/pcm;bits=12", small, nil, storage.ErrInvalidMedia, "bits=12"},
		{"audio/L16;bits=24", small, nil, storage.ErrInvalidMedia, "bits=24"},
		{"audio/pcm;endianness=middle", small, nil, storage.ErrInvalidMedia, "big-endian or little-endian"},
		{"audio/pcm;x=" + strings.Repeat("y", 300), small, nil, storage.ErrInvalidMedia, "MIME type"},
		{"audio/pcm", small, labels, storage.ErrInvalidMedia, "label converted_from"},
		{"audio/pcm", small, many, storage.ErrInvalidMedia, "labels"},
		{"audio/pcm", large, nil, storage.ErrTooLarge, "MaxFileSize"},
	} {
		_, err := f.StoreReader(t.Context(), bytes.NewReader(c.data), storage.MediaInfo{MimeType: c.mimeType}, storage.MediaMetadata{Labels: c.labels})
		require.ErrorIs(t, err, c.is, c.mimeType)
		require.ErrorContains(t, err, c.says)
		requireSentinel(t, err, dir)
		requireEmpty(t, f, dir)
	}
	require.Equal(t, "mine", labels[engine.ConvertedFrom])
}

// nthFails is a tree whose nth change, or look at what is staged, fails.
type nthFails struct {
	engine.Blobs
	left *int // until then
}

func (b nthFails) fail() error {
	if *b.left--; *b.left == 0 {
		return syscall.EIO
	}
	return nil
}

func (b nthFails) Spool(ctx context.Context, id storage.UUID, r io.Reader) (string, error) {
	if err := b.fail(); err != nil {
		return "", err
	}
	return b.Blobs.Spool(ctx, id, r)
}

func (b nthFails) Claim(ctx context.Context, spool string, key storage.BlobKey) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.Blobs.Claim(ctx, spool, key)
}

func (b nthFails) OpenStaged(ctx context.Context, key storage.BlobKey) (storage.File, int64, error) {
	if err := b.fail(); err != nil {
		return nil, 0, err
	}
	return b.Blobs.OpenStaged(ctx, key)
}

func (b nthFails) Discard(ctx context.Context, key storage.BlobKey) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.Blobs.Discard(ctx, key)
}

func (b nthFails) Publish(ctx context.Context, key storage.BlobKey, path string) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.Blobs.Publish(ctx, key, path)
}

// A wrapping that fails at any step says that the disk has failed, and leaves
// nothing that the next opening does not remove.
func TestWrapPCMThatFails(t *testing.T) {
	data := bytesOf(1<<20+4000, 1)
	for n := 1; ; n++ {
		require.Less(t, n, 100, "there is no end to it")
		left := n
		config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone, WrapPCM: true}
		f, err := engine.Open(t.Context(), engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			return i, nthFails{b, &left}
		}))
		require.NoError(t, err)
		_, err = f.StoreReader(t.Context(), bytes.NewReader(data), storage.MediaInfo{MimeType: "audio/L16"}, storage.MediaMetadata{})
		require.NoError(t, f.Close())
		if left > 0 {
			require.NoError(t, err)
			require.Greater(t, n, 5, "two spools, a claim of each, a look, a discard and a publish")
			return
		}
		require.ErrorIs(t, err, storage.ErrIO)
		requireSentinel(t, err, config.BaseDir)
		require.NotErrorIs(t, err, storage.ErrInvalidMedia)
		requireEmpty(t, mustOpen(t, config), config.BaseDir)
	}
}

// copiedStage copies a store in the moment when a wrapping reads what it has
// staged.
type copiedStage struct {
	engine.Blobs
	copy func()
}

func (b copiedStage) OpenStaged(ctx context.Context, key storage.BlobKey) (storage.File, int64, error) {
	b.copy()
	return b.Blobs.OpenStaged(ctx, key)
}

// A process that is killed in the middle of a wrapping leaves what the next
// opening removes.
func TestWrapPCMThatIsKilled(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	config := engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, WrapPCM: true}
	f := mustOpen(t, engine.WithSeams(config, func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
		return i, copiedStage{b, func() { require.NoError(t, os.CopyFS(killed, os.DirFS(dir))) }}
	}))
	_, err := f.StoreReader(t.Context(), bytes.NewReader(bytesOf(1<<20+4000, 1)), storage.MediaInfo{MimeType: "audio/pcm"}, storage.MediaMetadata{})
	require.NoError(t, err)
	left, err := filepath.Glob(filepath.Join(killed, ".mediabolt", "staging", "*", "*"))
	require.NoError(t, err)
	require.Len(t, left, 1)
	config.BaseDir = killed
	requireEmpty(t, mustOpen(t, config), killed)
}

// A wrapping that is cancelled leaves nothing.
func TestWrapPCMThatIsCancelled(t *testing.T) {
	f, dir := openPCM(t)
	data := bytesOf(1<<20+4000, 1)
	var ref *storage.StorageReference
	cancelEverywhere(t, func(ctx context.Context) (err error) {
		ref, err = f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{MimeType: "audio/L16"}, storage.MediaMetadata{})
		return err
	}, func(err error) {
		if err == nil {
			require.Len(t, readWAV(t, mustRetrieve(t, f, ref)).samples, len(data))
			require.NoError(t, f.Delete(context.Background(), ref))
		}
		requireEmpty(t, f, dir)
	})
}
