package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// useGoldenLast uses what formats before the present one did not have.
func useGoldenLast(t testing.TB, f *engine.FileStore) {
	t.Helper()
	ref := mustStore(t, f, []byte("golden, counted"), storage.MediaMetadata{SessionID: "counted", Policy: "retain-30days"})
	require.NoError(t, f.SetCount(t.Context(), ref, 5))
	require.NoError(t, f.Delete(t.Context(), ref))
}
