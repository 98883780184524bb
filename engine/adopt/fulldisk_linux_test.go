package adopt_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/certify/skip"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

// A move that fills the disk ends with that, has lost nothing, and goes on once there
// is room.
func TestMoveThatFillsTheDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Proof(t, "needs root to mount a small disk")
	}
	const files, size = 60, 1 << 20
	source, dir := t.TempDir(), t.TempDir()
	old := map[string]string{}
	noise := rand.NewChaCha8([32]byte{1})
	for i := range files {
		data := make([]byte, size)
		_, _ = noise.Read(data) // is documented to never fail
		name := fmt.Sprintf("%02d.bin", i)
		write(t, source, name, data)
		old[filepath.Join(source, name)] = hexOf(data)
	}
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=40m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	config := engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true}
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	var last error
	for _, err := range adopt.Adopt(context.Background(), f, adopt.Options{Dir: source, InPlace: true}) {
		last = err
	}
	require.ErrorIs(t, last, storage.ErrDiskSpace)
	require.NoError(t, f.Close())
	requireNothingLost(t, source, dir, old)

	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=200m"))
	f, err = engine.Open(context.Background(), config)
	require.NoError(t, err)
	_, r := adoptAll(t, f, adopt.Options{Dir: source, InPlace: true})
	require.Len(t, entries(t, f), files, "each once")
	require.Zero(t, r.Left)
	for ref, digest := range old {
		require.NoFileExists(t, ref)
		now, err := f.Resolve(context.Background(), ref)
		require.NoError(t, err)
		require.Equal(t, digest, hexOf(mustRead(t, f, now.ID)))
	}
	require.NoError(t, f.Close())
}
