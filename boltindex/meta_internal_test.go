package boltindex

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// failing fails to read from an offset on.
type failing struct {
	io.ReaderAt
	from int64
}

func (f failing) ReadAt(p []byte, at int64) (int, error) {
	if at >= f.from {
		return 0, syscall.EIO
	}
	return f.ReaderAt.ReadAt(p, at)
}

// A meta page that cannot be read is not taken for a damaged one: the other may be
// of an older state.
func TestMetaPageThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	x, err := Open(context.Background(), Config{Root: root, Create: true, NoSync: true})
	require.NoError(t, err)
	require.NoError(t, x.Close())
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	require.NoError(t, err)

	file, err := os.Open(filepath.Join(dir, fileName))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	now, before, err := readMetas(file)
	require.NoError(t, err)
	require.EqualValues(t, firstTxid, now.txid)
	require.EqualValues(t, firstTxid-1, before.txid)
	for _, from := range []int64{0, now.pageSize} {
		_, _, err = readMetas(failing{file, from})
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, storage.ErrCorrupted)
	}

	// Either page alone will do, none will not.
	for damaged := range 2 {
		require.NoError(t, flipByte(filepath.Join(dir, fileName), data, int64(damaged)*now.pageSize+20))
		one, none, err := readMetas(file)
		require.NoError(t, err)
		require.EqualValues(t, firstTxid-1+(damaged+int(firstTxid))%2, one.txid)
		require.Zero(t, none)
	}
	require.NoError(t, flipByte(filepath.Join(dir, fileName), data, 20, now.pageSize+20))
	_, _, err = readMetas(file)
	require.ErrorIs(t, err, storage.ErrCorrupted)
}

// flipByte writes data with bytes damaged.
func flipByte(name string, data []byte, at ...int64) error {
	bad := append([]byte{}, data...)
	for _, i := range at {
		bad[i] ^= 1
	}
	return os.WriteFile(name, bad, 0o600)
}
