package certify

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func TestNotes(t *testing.T) {
	for _, n := range []note{
		{verb: verbReady}, {verb: verbRead}, {verb: verbClosed},
		{verb: verbStore, op: "1.2", seed: 1<<64 - 1},
		{verb: verbStored, op: "1.2", id: "a1b2c3-x"}, {verb: verbDelete, op: "1.3", id: "a1b2c3-x"},
		{verb: verbRefused, op: "1.3"}, {verb: verbDeleted, op: "1.3"}, {verb: verbUnsure, op: "1.3"},
		{verb: verbBroken, text: "two words"}, {verb: verbHindered, text: "disk full"},
	} {
		got, err := parseNote(n.String())
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	require.Equal(t, "broken a b", note{verb: verbBroken, text: "a\nb\n"}.String(), "a note is one line")
	for _, line := range []string{"", "stored", "stored 1.2", "store 1.2 x", "store 1.2 -1", "ready 1", "sings"} {
		_, err := parseNote(line)
		require.Error(t, err, line)
	}
}

func TestContent(t *testing.T) {
	require.Equal(t, content(7), content(7))
	require.NotEqual(t, content(7), content(8))
	require.Empty(t, content(1))
	require.Greater(t, len(content(0)), spooledSize-1)
}

func TestLatency(t *testing.T) {
	var samples []time.Duration
	for i := range 200 {
		samples = append(samples, time.Duration(200-i)*time.Microsecond)
	}
	require.Equal(t, Latency{Samples: 200, P50: 100, P95: 190, P99: 198, Max: 200}, latencyOf(samples))
	require.Equal(t, Latency{Samples: 1, P50: 3, P95: 3, P99: 3, Max: 3}, latencyOf([]time.Duration{3 * time.Microsecond}))
	require.Zero(t, latencyOf(nil))
}

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

func TestHonesty(t *testing.T) {
	for _, c := range []struct {
		name string
		disk Disk
		want Honesty
	}{
		{"memory", Disk{Mount: Mount{Filesystem: "tmpfs"}, Overwrite: Latency{P50: 0.5}, Append: Latency{P50: 0.5}}, HonestyNone},
		{"ignored", Disk{Mount: Mount{Filesystem: "ext4"}, Overwrite: Latency{P50: 3}, Append: Latency{P50: 9}}, HonestyTooFast},
		{"one of two ignored", Disk{Mount: Mount{Filesystem: "zfs"}, Overwrite: Latency{P50: 3}, Append: Latency{P50: 900}}, HonestyTooFast},
		{"protected cache", Disk{Mount: Mount{Filesystem: "ext4"}, Overwrite: Latency{P50: 25}, Append: Latency{P50: 60}}, HonestyPlausible},
		{"turns", Disk{Mount: Mount{Filesystem: "ext4", Rotational: "1"}, Overwrite: Latency{P50: 8000}, Append: Latency{P50: 16000}}, HonestyPlausible},
		{"says that it turns", Disk{Mount: Mount{Filesystem: "ext4", Rotational: "1"}, Overwrite: Latency{P50: 300}, Append: Latency{P50: 400}}, HonestyUnclear},
		{"write through", Disk{Mount: Mount{Filesystem: "xfs", WriteCache: "write through"}, Overwrite: Latency{P50: 300}, Append: Latency{P50: 400}}, HonestyPlausible},
	} {
		got, why := c.disk.honesty()
		require.Equal(t, c.want, got, c.name)
		require.NotEmpty(t, why)
	}
}

func TestConcerns(t *testing.T) {
	sound := Disk{Mount: Mount{Filesystem: "ext4", Options: []string{"rw", "relatime"}, ReportingSyncfs: true}, HardLinks: true}
	require.Empty(t, sound.concerns())
	for _, c := range []struct {
		filesystem, option, want string
	}{
		{"tmpfs", "", "with the power"}, {"nfs4", "", "local filesystem"}, {"vfat", "", "no journal"},
		{"xfs", "nobarrier", "never flushed"}, {"ext4", "barrier=0", "never flushed"},
		{"ext4", "data=writeback", "old bytes"}, {"overlay", "volatile", "ignores every sync"},
	} {
		d := sound
		d.Filesystem, d.Options = c.filesystem, []string{"rw", c.option}
		require.Len(t, d.concerns(), 1)
		require.Contains(t, d.concerns()[0], c.want)
	}
	bare := sound
	bare.HardLinks, bare.ReportingSyncfs = false, false
	require.Len(t, bare.concerns(), 2)
}

// An error does not hide what was seen before it, and a violation alone is none.
func TestErrorBesidesAViolation(t *testing.T) {
	broken := []Violation{{Part: "kills", Kind: ViolationLost, Detail: "reference x is gone"}}
	require.NoError(t, besides(nil, broken))
	require.Equal(t, storage.ErrIO, besides(storage.ErrIO, nil))
	err := besides(storage.ErrIO, broken)
	require.ErrorIs(t, err, storage.ErrIO)
	require.ErrorContains(t, err, "lost in kills: reference x is gone")
}
