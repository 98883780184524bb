package mount

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
)

// The superblock that mkfs.ext4 writes tells whether it has the feature.
func TestFastCommitInASuperblock(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		skip.Proof(t, "no mkfs.ext4")
	}
	for feature, want := range map[string]bool{"fast_commit": true, "^fast_commit": false} {
		image := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(image, nil, 0o600))
		require.NoError(t, os.Truncate(image, 32<<20))
		out, err := exec.Command(mkfs, "-q", "-F", "-O", feature, image).CombinedOutput()
		require.NoError(t, err, "%s", out)
		f, err := os.Open(image)
		require.NoError(t, err)
		defer f.Close()
		super := make([]byte, superblockHead)
		_, err = f.ReadAt(super, superblockAt)
		require.NoError(t, err)
		require.Equal(t, want, hasFastCommit(super), feature)
	}
	require.False(t, hasFastCommit(make([]byte, superblockHead)))
}
