package engine_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// readURL reads the file of a file URL as another program would.
func readURL(t *testing.T, text string) ([]byte, error) {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	require.Equal(t, "file", u.Scheme)
	name := u.Path
	if runtime.GOOS == "windows" {
		name = strings.TrimPrefix(name, "/")
	}
	return os.ReadFile(filepath.FromSlash(name))
}

// A URL leads to the bytes, whatever the directories are called, until the last
// reference is gone.
func TestURL(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "my media 100% #1 日")
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	a := mustStore(t, f, small, storage.MediaMetadata{SessionID: "a session? yes&no", ConversationID: "50%"})
	b := mustStore(t, f, small, storage.MediaMetadata{})
	to, err := f.URL(ctx, a)
	require.NoError(t, err)
	data, err := readURL(t, to)
	require.NoError(t, err)
	require.Equal(t, small, data)
	same, err := f.URL(ctx, &storage.StorageReference{ID: b.ID})
	require.NoError(t, err)
	require.Equal(t, to, same, "of the blob that both share")

	require.NoError(t, f.Delete(ctx, a))
	_, err = f.URL(ctx, a)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.ErrorContains(t, err, a.ID)
	data, err = readURL(t, to)
	require.NoError(t, err)
	require.Equal(t, small, data)
	require.NoError(t, f.Delete(ctx, b))
	_, err = readURL(t, to)
	require.ErrorIs(t, err, os.ErrNotExist)

	again, err := f.URL(ctx, mustStore(t, f, small, storage.MediaMetadata{}))
	require.NoError(t, err)
	require.NotEqual(t, to, again)
}

func TestURLOfWhatIsNotThere(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true}
	f := mustOpen(t, config)
	ref := mustStore(t, f, small, storage.MediaMetadata{})
	_, err := f.URL(ctx, &storage.StorageReference{ID: "../../etc/passwd"})
	require.ErrorIs(t, err, storage.ErrInvalidRef)
	requireSentinel(t, err, config.BaseDir)

	file := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
	require.NoError(t, os.Truncate(file, 3))
	_, err = f.URL(ctx, ref)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	requireSentinel(t, err, config.BaseDir)
	require.NoError(t, os.Remove(file))
	_, err = f.URL(ctx, ref)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.ErrorIs(t, err, storage.ErrNotFound)
	mustStore(t, f, small, storage.MediaMetadata{}) // heals it
	_, err = f.URL(ctx, ref)
	require.NoError(t, err)
}
