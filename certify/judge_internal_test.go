package certify

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/mount"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func TestNotes(t *testing.T) {
	for _, n := range []note{
		{verb: verbReady}, {verb: verbRead}, {verb: verbClosed},
		{verb: verbStore, op: "1.2", seed: 1<<64 - 1},
		{verb: verbStored, op: "1.2", id: "a1b2c3-x"}, {verb: verbDelete, op: "1.3", id: "a1b2c3-x"},
		{verb: verbRefused, op: "1.3"}, {verb: verbDeleted, op: "1.3"}, {verb: verbUnsure, op: "1.3"},
		{verb: verbLimited, op: "1.4"}, {verb: verbSpared},
		{verb: verbHold, op: "1.5", hold: hold{"a1b2c3-x", "audit"}}, {verb: verbHeld, op: "1.5"},
		{verb: verbRelease, op: "1.6", hold: hold{"dossier-1-000002", "audit"}}, {verb: verbReleased, op: "1.6"},
		{verb: verbErase, op: "1.7", dossier: noDossier, ids: []string{"a1b2c3-x", "a1b2c3-y"}},
		{verb: verbErase, op: "1.8", dossier: "dossier-1-000002", ids: []string{}}, {verb: verbErased, op: "1.8"},
		{verb: verbBroken, text: "two words"}, {verb: verbHindered, text: "disk full"},
	} {
		got, err := parseNote(n.String())
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	require.Equal(t, "broken a b", note{verb: verbBroken, text: "a\nb\n"}.String(), "a note is one line")
	for _, line := range []string{"", "stored", "stored 1.2", "store 1.2 x", "store 1.2 -1", "ready 1", "sings", "hold 1.2 x", "erase 1.2", "held"} {
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

func TestHonesty(t *testing.T) {
	for _, c := range []struct {
		name string
		disk Disk
		want Honesty
	}{
		{"memory", Disk{Mount: mount.Mount{Filesystem: "tmpfs"}, Overwrite: Latency{P50: 0.5}, Append: Latency{P50: 0.5}}, HonestyNone},
		{"ignored", Disk{Mount: mount.Mount{Filesystem: "ext4"}, Overwrite: Latency{P50: 3}, Append: Latency{P50: 9}}, HonestyTooFast},
		{"one of two ignored", Disk{Mount: mount.Mount{Filesystem: "zfs"}, Overwrite: Latency{P50: 3}, Append: Latency{P50: 900}}, HonestyTooFast},
		{"protected cache", Disk{Mount: mount.Mount{Filesystem: "ext4"}, Overwrite: Latency{P50: 25}, Append: Latency{P50: 60}}, HonestyPlausible},
		{"turns", Disk{Mount: mount.Mount{Filesystem: "ext4", Rotational: "1"}, Overwrite: Latency{P50: 8000}, Append: Latency{P50: 16000}}, HonestyPlausible},
		{"says that it turns", Disk{Mount: mount.Mount{Filesystem: "ext4", Rotational: "1"}, Overwrite: Latency{P50: 300}, Append: Latency{P50: 400}}, HonestyUnclear},
		{"write through", Disk{Mount: mount.Mount{Filesystem: "xfs", WriteCache: "write through"}, Overwrite: Latency{P50: 300}, Append: Latency{P50: 400}}, HonestyPlausible},
	} {
		got, why := c.disk.honesty()
		require.Equal(t, c.want, got, c.name)
		require.NotEmpty(t, why)
	}
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

// A quota is exceeded by one byte more than it has, of whichever kind it is; bytes that
// are shared count once for the total and for each reference of a user or session.
func TestJudgeOfQuotas(t *testing.T) {
	entry := func(path string) engine.Entry {
		return engine.Entry{Path: path, Size: 100, Metadata: storage.MediaMetadata{UserID: "u", SessionID: "s"}}
	}
	entries := map[string]engine.Entry{"a": entry("shared"), "b": entry("shared"), "c": entry("alone")}
	for _, c := range []struct {
		quota engine.Quota
		found int
	}{
		{engine.Quota{}, 0},
		{engine.Quota{TotalBytes: 200, UserBytes: 300, SessionBytes: 300}, 0},
		{engine.Quota{TotalBytes: 199}, 1},
		{engine.Quota{UserBytes: 299}, 1},
		{engine.Quota{SessionBytes: 299, TotalBytes: 199}, 2},
	} {
		m := newModel()
		m.begin(&orders{Quota: c.quota})
		j := &judge{model: m, entries: entries}
		j.quotas()
		require.Len(t, j.found, c.found, "%+v", c.quota)
		for _, v := range j.found {
			require.Equal(t, ViolationQuota, v.Kind)
		}
	}
}
