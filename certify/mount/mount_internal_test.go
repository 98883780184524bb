package mount

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,nobarrier
30 27 0:27 / /mnt/my\040disk rw,nosuid - tmpfs tmpfs rw,size=4k
31 27 8:1 / /mnt/my\040disk rw,nosuid - xfs /dev/sda1 rw,attr2
32 27 0:50 / /mnt/m rw master:2 propagate_from:1 - nfs4 host:/x rw,vers=4.2
`

func TestMountinfo(t *testing.T) {
	for path, want := range map[string]Mount{
		"/":                 {Filesystem: "ext4", MountPoint: "/", Device: "/dev/vda", number: "254:0", Options: []string{"rw", "relatime", "nobarrier"}},
		"/mnt/my":           {Filesystem: "ext4", MountPoint: "/", Device: "/dev/vda", number: "254:0", Options: []string{"rw", "relatime", "nobarrier"}},
		"/mnt/my disk/data": {Filesystem: "xfs", MountPoint: "/mnt/my disk", Device: "/dev/sda1", number: "8:1", Options: []string{"rw", "nosuid", "attr2"}},
		"/mnt/m":            {Filesystem: "nfs4", MountPoint: "/mnt/m", Device: "host:/x", number: "0:50", Options: []string{"rw", "vers=4.2"}},
	} {
		got, err := parseMountinfo(mountinfo, path)
		require.NoError(t, err)
		require.Equal(t, want, got, path)
	}
	_, err := parseMountinfo("22 27 0:21 / /proc rw - proc proc rw\n", "/home")
	require.ErrorContains(t, err, "/home")
	_, err = parseMountinfo("22 27 0:21\n", "/home")
	require.ErrorContains(t, err, "too few fields")
}

func TestConcerns(t *testing.T) {
	sound := Mount{Filesystem: "ext4", Options: []string{"rw", "relatime"}, ReportingSyncfs: true}
	require.Empty(t, sound.Concerns())
	for _, c := range []struct {
		filesystem, option, want string
		grave                    bool
	}{
		{"tmpfs", "", "with the power", true}, {"nfs4", "", "local filesystem", true}, {"vfat", "", "no journal", true},
		{"xfs", "nobarrier", "never flushed", true}, {"ext4", "barrier=0", "never flushed", true},
		{"ext4", "data=writeback", "old bytes", false}, {"overlay", "", "on a volume", false},
	} {
		m := sound
		m.Filesystem, m.Options = c.filesystem, []string{"rw", c.option}
		require.Len(t, m.Concerns(), 1)
		require.Contains(t, m.Concerns()[0].Text, c.want)
		require.Equal(t, c.grave, m.Concerns()[0].Grave, c.want)
	}
	layer := sound
	layer.Filesystem, layer.Options = "overlay", []string{"rw", "volatile"}
	require.Len(t, layer.Concerns(), 2)
	require.Contains(t, layer.Concerns()[1].Text, "ignores every sync")
	require.True(t, layer.Concerns()[1].Grave)
	bare := sound
	bare.FastCommit, bare.ReportingSyncfs = true, false
	require.Len(t, bare.Concerns(), 2)
}
