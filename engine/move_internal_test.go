package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// A blob that is to get the path that it has keeps its file.
func TestMoveToThePathThatABlobHas(t *testing.T) {
	f, s := openForUndo(t)
	ctx := context.Background()
	ref, err := put(f, "s")
	require.NoError(t, err)
	page, err := s.index.Blobs(ctx, "", 2)
	require.NoError(t, err)
	require.Len(t, page, 1)
	failed := s.move(ctx, []relocation{{key: page[0].Key, from: page[0].Path, to: page[0].Path, mode: storage.OrganizationFlat}})
	require.Equal(t, []error{nil}, failed)
	after, err := s.index.Blob(ctx, page[0].Key)
	require.NoError(t, err)
	require.Equal(t, page[0], after)
	_, err = f.Retrieve(ctx, ref)
	require.NoError(t, err)
}
