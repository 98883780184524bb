package certify

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
)

// A store may be closed before its crew has come to know what is in it.
func TestCrewOfAClosedStore(t *testing.T) {
	store, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	c := &crew{store: store, say: func(n note) { t.Error(n) }, keep: 1}
	require.NoError(t, c.work(context.Background()))
}
