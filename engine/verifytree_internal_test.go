package engine

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// movesAtDebt is an index in which a blob moves just before somebody looks at the debt.
type movesAtDebt struct {
	Index
	move func()
}

func (x *movesAtDebt) Debt(ctx context.Context) (storage.Debt, error) {
	if x.move != nil {
		x.move()
		x.move = nil
	}
	return x.Index.Debt(ctx)
}

// A file that a blob moves to between two looks of Verify is no orphan.
func TestVerifyWhileABlobMoves(t *testing.T) {
	f, s := openForUndo(t)
	ref, err := put(f, "session")
	require.NoError(t, err)
	require.NoError(t, s.checkpoint(t.Context(), false))
	id, err := storage.ParseID(ref.ID)
	require.NoError(t, err)
	_, blob, err := s.index.Ref(t.Context(), id)
	require.NoError(t, err)
	to, err := s.newPath(&blob, "elsewhere")
	require.NoError(t, err)
	require.NoError(t, s.index.Owe(t.Context(), storage.Debt{Unlinks: []storage.Unlink{{Path: to}}}))
	at := func(name string) string { return filepath.Join(s.cfg.BaseDir, filepath.FromSlash(name)) }
	require.NoError(t, os.Mkdir(at("elsewhere"), 0o700))
	require.NoError(t, os.Link(at(blob.Path), at(to)))
	file := storage.TreeFile{Path: to, Blob: to}
	file.ID, err = fileID(to)
	require.NoError(t, err)

	s.index = &movesAtDebt{s.index, func() {
		_, err := s.index.Move(t.Context(), blob.Key, to, blob.Organization)
		require.NoError(t, err)
	}}
	v := &verification{s: s, ctx: t.Context()}
	still, err := v.stillOrphans([]storage.TreeFile{file})
	require.NoError(t, err)
	require.Empty(t, still)

	debt, err := s.index.Debt(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.payMirrors(t.Context(), debt.Mirrors))
	for _, u := range debt.Unlinks {
		s.payRemoval(t.Context(), storage.UUID{}, &storage.Removal{Last: true, Blob: storage.BlobRow{Key: blob.Key, Path: u.Path}})
	}
}
