package engine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func TestParsePolicy(t *testing.T) {
	from := time.Date(2026, 3, 1, 12, 0, 0, 1500, time.UTC)
	kept := time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC) // to the microsecond
	for name, want := range map[string]time.Time{
		"retain":                              {},
		"retain-30days":                       kept.AddDate(0, 0, 30),
		"retain-1day":                         kept.AddDate(0, 0, 1),
		"retain-12hours":                      kept.Add(12 * time.Hour),
		"retain-2weeks":                       kept.AddDate(0, 0, 14),
		"retain-090seconds":                   kept.Add(90 * time.Second),
		"delete-after-10min":                  kept.Add(10 * time.Minute),
		"delete-after-1minute":                kept.Add(time.Minute),
		"delete-after-5secs":                  kept.Add(5 * time.Second),
		"delete-after-106751days":             kept.AddDate(0, 0, 106751),
		"36h":                                 kept.Add(36 * time.Hour),
		"1h30m":                               kept.Add(90 * time.Minute),
		"1ns":                                 kept,
		"500ns":                               kept.Add(time.Microsecond),
		"2027-01-31T00:00:00Z":                time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T00:00:00.123456789+01:00": time.Date(2027, 1, 30, 23, 0, 0, 123456000, time.UTC),
		"1970-01-01T00:00:00Z":                time.Unix(0, 0).UTC(),
		"9999-12-31T23:59:59Z":                time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		p, err := engine.ParsePolicy(name)
		require.NoError(t, err, name)
		require.Equal(t, name, p.String())
		at, err := p.Expiry(from)
		require.NoError(t, err, name)
		require.Equal(t, want, at, name)
		require.Equal(t, name == engine.PolicyForever, p.Forever())
	}
	require.True(t, engine.Policy{}.Forever())
	require.Equal(t, engine.PolicyForever, engine.Policy{}.String())

	late, err := engine.ParsePolicy("retain-10weeks")
	require.NoError(t, err)
	_, err = late.Expiry(time.Date(9999, 12, 1, 0, 0, 0, 0, time.UTC))
	require.ErrorIs(t, err, storage.ErrInvalidPolicy)
	require.ErrorContains(t, err, "9999")
}

func TestPoliciesThatAreNone(t *testing.T) {
	for name, says := range map[string]string{
		"":                               "want retain",
		"keep":                           "want retain",
		"Retain":                         "want retain",
		"retain ":                        "want retain",
		"retain-":                        "want retain",
		"retain-days":                    "want retain",
		"retain--3days":                  "want retain",
		"retain-3":                       `unit ""`,
		"retain-3months":                 `unit "months"`,
		"retain-3 days":                  `unit " days"`,
		"retain-3dayss":                  `unit "dayss"`,
		"retain-1.5days":                 `unit ".5days"`,
		"retain-0days":                   "1 or more",
		"delete-after-0min":              "1 or more",
		"retain-106752days":              "293 years",
		"retain-9223372036854775808sec":  "293 years",
		"0s":                             "positive",
		"-36h":                           "positive",
		"2027-01-31":                     "want retain",
		"1969-12-31T23:59:59Z":           "year outside 1970 to 9999",
		"0001-01-01T00:00:00Z":           "year outside 1970 to 9999",
		"9999-12-31T23:59:59-01:00":      "year outside 1970 to 9999",
		"2027-13-01T00:00:00Z":           "want retain",
		strings.Repeat("0", 64) + "h":    "at most 64",
		"retain-\x00days":                "want retain",
		"retain-3\xffdays":               "unit",
		"delete-after-10min\n":           "unit",
		"retain-30days,delete-after-1h":  "unit",
		"retain-1" + string(rune(0x661)): "unit", // an Arabic digit
	} {
		p, err := engine.ParsePolicy(name)
		require.ErrorIs(t, err, storage.ErrInvalidPolicy, "%q", name)
		require.ErrorContains(t, err, says, "%q", name)
		require.Zero(t, p)
		require.Less(t, len(err.Error()), 400)
	}
}

// What is read as a policy is kept as it is, and expires at a time that a row can
// have; everything else is refused as such.
func FuzzParsePolicy(f *testing.F) {
	for _, seed := range []string{"retain", "retain-30days", "delete-after-10min", "36h", "2027-01-31T00:00:00Z", "retain-99999999999weeks", "-1h", ""} {
		f.Add(seed, int64(1_700_000_000_000_000))
	}
	f.Fuzz(func(t *testing.T, name string, micros int64) {
		p, err := engine.ParsePolicy(name)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidPolicy)
			require.Zero(t, p)
			return
		}
		again, err := engine.ParsePolicy(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
		from := time.UnixMicro(micros % (253_402_300_800_000_000)).UTC() // to the end of 9999, either way
		at, err := p.Expiry(from)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidPolicy)
			return
		}
		require.Equal(t, p.Forever(), at.IsZero())
		if !p.Forever() {
			require.Equal(t, at, at.Truncate(time.Microsecond))
			require.LessOrEqual(t, at.Year(), 9999)
		}
	})
}

// The policy of the caller counts, else that of the rule, else the default; they begin
// when the reference is stored, whatever its CreatedAt says.
func TestPolicyOfAStore(t *testing.T) {
	clock := newClock()
	f := mustOpen(t, engine.WithClock(engine.FileStoreConfig{
		BaseDir: t.TempDir(), EnableDeduplication: true, DefaultPolicy: "retain-30days",
		Retention: func(info storage.MediaInfo, m storage.MediaMetadata) string {
			switch {
			case m.UserID == "guest":
				return "delete-after-10min"
			case info.Type == "audio", m.Labels["keep"] != "":
				return "retain"
			case m.SessionID == "broken":
				return "for a while"
			}
			return ""
		},
	}, clock.now))
	ctx := context.Background()
	store := func(info storage.MediaInfo, m storage.MediaMetadata) (engine.Entry, error) {
		ref, err := f.StoreReader(ctx, strings.NewReader("RIFF\x00\x00\x00\x00WAVEfmt "), info, m)
		if err != nil {
			return engine.Entry{}, err
		}
		return mustStat(t, f, ref), nil
	}
	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		info   storage.MediaInfo
		meta   storage.MediaMetadata
		policy string
		after  time.Duration // zero: never
	}{
		{storage.MediaInfo{Type: "image"}, storage.MediaMetadata{CreatedAt: old}, "retain-30days", 30 * 24 * time.Hour},
		{storage.MediaInfo{}, storage.MediaMetadata{}, "retain", 0}, // its bytes say that it is audio
		{storage.MediaInfo{Type: "image"}, storage.MediaMetadata{Labels: map[string]string{"keep": "yes"}}, "retain", 0},
		{storage.MediaInfo{Type: "image"}, storage.MediaMetadata{UserID: "guest"}, "delete-after-10min", 10 * time.Minute},
		{storage.MediaInfo{Type: "image"}, storage.MediaMetadata{UserID: "guest", Policy: "36h"}, "36h", 36 * time.Hour},
		{storage.MediaInfo{Type: "image"}, storage.MediaMetadata{SessionID: "broken", Policy: "retain"}, "retain", 0},
	} {
		e, err := store(c.info, c.meta)
		require.NoError(t, err)
		require.Equal(t, c.policy, e.Metadata.Policy)
		want := time.Time{}
		if c.after > 0 {
			want = clock.now().Add(c.after)
		}
		require.Equal(t, want, e.ExpiresAt, "%+v", c)
		clock.pass(time.Second)
	}
	before := mustStats(t, f).References
	_, err := store(storage.MediaInfo{Type: "image"}, storage.MediaMetadata{SessionID: "broken"})
	require.ErrorIs(t, err, storage.ErrInvalidPolicy)
	require.ErrorContains(t, err, `rule of the store: `)
	require.ErrorContains(t, err, `"for a while"`)
	_, err = store(storage.MediaInfo{}, storage.MediaMetadata{Policy: "tomorrow"})
	require.ErrorIs(t, err, storage.ErrInvalidPolicy)
	require.Equal(t, before, mustStats(t, f).References)
}

// Without a policy of any kind a reference has none, and stays.
func TestNoPolicy(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	e := mustStat(t, f, mustStore(t, f, small, someIDs))
	require.Empty(t, e.Metadata.Policy)
	require.Zero(t, e.ExpiresAt)
}

func TestBadRetentionConfigurations(t *testing.T) {
	for says, config := range map[string]engine.FileStoreConfig{
		`DefaultPolicy: invalid retention policy: "soon"`: {DefaultPolicy: "soon"},
		"SweepInterval -1s": {SweepInterval: -time.Second},
		"SweepRate -1":      {SweepInterval: time.Second, SweepRate: -1},
	} {
		config.BaseDir = t.TempDir()
		_, err := engine.Open(context.Background(), config)
		require.ErrorIs(t, err, storage.ErrInvalidConfig)
		require.ErrorContains(t, err, says)
	}
}
