package boltindex_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func TestCommits(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	before := x.Commits()
	for i := range byte(3) {
		mustAdd(t, x, storage.UUID{5: i + 1, 6: 0x70}, storage.MediaMetadata{SessionID: "s"})
	}
	require.Equal(t, before+3, x.Commits(), "each addition came alone")
	mustClose(t, x)
	require.GreaterOrEqual(t, mustOpen(t, dir).Commits(), before+3)
}
