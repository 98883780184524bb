package storage_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// randomBytes fills dst from a generator of its own, the same each time.
func randomBytes(seed uint64, dst []byte) {
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range dst {
		dst[i] = byte(random.Uint32())
	}
}

func TestIDRoundTrip(t *testing.T) {
	for seed := range uint64(1000) {
		var id storage.ID
		randomBytes(seed, id.Hash[:])
		randomBytes(seed+1000, id.UUID[:])
		s := id.String()
		require.Len(t, s, 33)
		require.Equal(t, strings.ToLower(s), s)
		parsed, err := storage.ParseID(s)
		require.NoError(t, err)
		require.Equal(t, id, parsed)
	}
}

func TestIDText(t *testing.T) {
	for want, id := range map[string]storage.ID{
		"000000-00000000000000000000000000": {},
		"a1b2c3-00000000000000000000000004": {Hash: [3]byte{0xa1, 0xb2, 0xc3}, UUID: storage.UUID{15: 1}},
		"ffffff-zzzzzzzzzzzzzzzzzzzzzzzzzw": {Hash: [3]byte{0xff, 0xff, 0xff}, UUID: storage.UUID(slices.Repeat([]byte{0xff}, 16))},
	} {
		require.Equal(t, want, id.String())
		parsed, err := storage.ParseID(want)
		require.NoError(t, err)
		require.Equal(t, id, parsed)
	}
}

// UUIDs sort as text like their bytes, so files sort in order of time.
func TestUUIDOrder(t *testing.T) {
	var last storage.UUID
	list := make([]storage.UUID, 500)
	for i := range list {
		randomBytes(uint64(i), list[i][:])
	}
	slices.SortFunc(list, func(a, b storage.UUID) int { return slices.Compare(a[:], b[:]) })
	for _, u := range list {
		require.LessOrEqual(t, last.String(), u.String())
		last = u
	}
}

func TestParseIDRefuses(t *testing.T) {
	const good = "a1b2c3-00000000000000000000000004"
	for what, s := range map[string]string{
		"nothing":                     "",
		"too short":                   good[:32],
		"too long":                    good + "0",
		"no dash":                     strings.Replace(good, "-", "0", 1),
		"upper-case hash":             "A1B2C3" + good[6:],
		"upper-case UUID":             good[:32] + "W",
		"no hexadecimal":              "g1b2c3" + good[6:],
		"a letter left out":           good[:31] + "u4",
		"l for 1":                     good[:31] + "l4",
		"bits behind the last":        good[:32] + "1",
		"a path":                      "../../" + good[6:],
		"an extension":                good + ".png",
		"a newline":                   good[:32] + "\n",
		"NUL":                         good[:32] + "\x00",
		"a UUID as others print it":   "a1b2c3-0190a5f4-7c3e-7b1a-9c1d-2f4b6a8c0e11",
		"spaces":                      " " + good[:32],
		"full-width digits":           "a1b2c3-" + strings.Repeat("０", 8) + "00",
		"long":                        strings.Repeat("a", 1<<16),
		"newline inside the UUID":     good[:20] + "\n" + good[21:],
		"carriage return in the hash": "a1b\r\n3" + good[6:],
	} {
		id, err := storage.ParseID(s)
		require.ErrorIs(t, err, storage.ErrInvalidRef, what)
		require.Zero(t, id, what)
		require.Less(t, len(err.Error()), 500, what)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("a1b2c3-00000000000000000000000004")
	f.Add("a1b2c3-00000000000000000000000001")
	f.Add("A1B2C3-00000000000000000000000000")
	f.Add("../../-00000000000000000000000000")
	f.Add("a1b2c3-0000000000000\n000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := storage.ParseID(s)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidRef)
			return
		}
		require.Equal(t, s, id.String())
	})
}

func TestDigest(t *testing.T) {
	for seed := range uint64(200) {
		var d storage.Digest
		randomBytes(seed, d[:])
		s := d.String()
		require.Len(t, s, 64)
		for _, spelling := range []string{s, "sha256:" + s, strings.ToUpper(s)} {
			parsed, err := storage.ParseDigest(spelling)
			require.NoError(t, err)
			require.Equal(t, d, parsed)
		}
	}
	require.Empty(t, storage.Digest{}.String())
	require.True(t, storage.Digest{}.IsZero())
	require.False(t, storage.Digest{31: 1}.IsZero())
	zeros := strings.Repeat("0", 64)
	for _, s := range []string{"", "sha256:", zeros[1:], zeros + "0", "sha256:" + zeros[1:], "sha512:" + zeros, "g" + zeros[1:], "SHA256:" + zeros, strings.Repeat("0", 1<<16)} {
		d, err := storage.ParseDigest(s)
		require.ErrorIs(t, err, storage.ErrInvalidRef, "%.80q", s)
		require.Zero(t, d)
		require.Less(t, len(err.Error()), 500)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add("sha256:" + strings.Repeat("a1", 32))
	f.Add("sha256:" + strings.Repeat("A1", 32))
	f.Add("sha256")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := storage.ParseDigest(s)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidRef)
			return
		}
		text := strings.ToLower(strings.TrimPrefix(s, "sha256:"))
		if d.IsZero() {
			require.Equal(t, strings.Repeat("0", 64), text)
			return
		}
		require.Equal(t, text, d.String())
	})
}

func TestBlobKey(t *testing.T) {
	for seed := range uint64(200) {
		var d storage.Digest
		var u storage.UUID
		randomBytes(seed, d[:])
		randomBytes(seed, u[:])
		for _, key := range []storage.BlobKey{storage.DigestKey(d), storage.UUIDKey(u), storage.ScopedKey(d, storage.Scope(u))} {
			require.True(t, key.Valid())
			parsed, err := storage.ParseBlobKey(key.String())
			require.NoError(t, err)
			require.Equal(t, key, parsed)
		}
		require.True(t, storage.DigestKey(d).Shared())
		require.True(t, storage.ScopedKey(d, storage.Scope(u)).Shared())
		require.False(t, storage.UUIDKey(u).Shared())
		got, ok := storage.DigestKey(d).Digest()
		require.True(t, ok)
		require.Equal(t, d, got)
		for _, key := range []storage.BlobKey{storage.UUIDKey(u), storage.ScopedKey(d, storage.Scope(u))} {
			_, ok = key.Digest()
			require.False(t, ok)
		}
	}
	require.Empty(t, storage.BlobKey("").String())
	for _, s := range []string{
		"", "d", "u", "x" + strings.Repeat("0", 64), "d" + strings.Repeat("0", 63), "d" + strings.Repeat("0", 66),
		"s" + strings.Repeat("0", 64), "s" + strings.Repeat("0", 98), "u" + strings.Repeat("0", 30), "u" + strings.Repeat("0", 64), "d" + strings.Repeat("A", 64), "D" + strings.Repeat("0", 64),
		"../" + strings.Repeat("0", 62), "d" + strings.Repeat("g", 64), strings.Repeat("d", 1<<16), "é" + strings.Repeat("0", 64),
	} {
		key, err := storage.ParseBlobKey(s)
		require.ErrorIs(t, err, storage.ErrInvalidRef, "%.80q", s)
		require.Empty(t, key)
	}
	for _, key := range []storage.BlobKey{"", "d", "u", "dx", storage.BlobKey(strings.Repeat("d", 32)), storage.BlobKey(strings.Repeat("x", 33)), storage.BlobKey(strings.Repeat("u", 18))} {
		require.False(t, key.Valid(), "%q", key)
		_, ok := key.Digest()
		require.False(t, ok, "%q", key)
	}
}

// The scopes of IDs are part of the format, and no two IDs, of whatever kinds, have
// one in common.
func TestScopeOf(t *testing.T) {
	scope := storage.ScopeOf(storage.UserIDs, "u1")
	require.Equal(t, "433f5a031e86909a46b5e2bac60e2452", hex.EncodeToString(scope[:])) // printf 'user\0u1' | sha256sum | cut -c -32
	seen := map[storage.Scope]string{}
	for _, kind := range []storage.IDKind{storage.ConversationIDs, storage.SessionIDs, storage.RunIDs, storage.UserIDs} {
		for _, id := range []string{"u1", "u2", "1", "\x00u1", "user", "ü"} {
			scope := storage.ScopeOf(kind, id)
			require.Empty(t, seen[scope], "%d %q", kind, id)
			seen[scope] = id
		}
	}
}

func FuzzParseBlobKey(f *testing.F) {
	f.Add("d" + strings.Repeat("0", 64))
	f.Add("u" + strings.Repeat("f", 32))
	f.Add("u" + strings.Repeat("F", 32))
	f.Add("s" + strings.Repeat("7", 96))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := storage.ParseBlobKey(s)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidRef)
			return
		}
		require.True(t, key.Valid())
		require.Equal(t, s, key.String())
	})
}

func TestReferenceJSON(t *testing.T) {
	for _, ref := range []storage.StorageReference{
		{
			ID: "a1b2c3-00000000000000000000000004", Backend: "file",
			Metadata:  map[string]string{"path": "s/c/a1b2c3-00000000000000000000000004.png", "org": "by-session", "size": "12", "sha256": strings.Repeat("0", 64)},
			CreatedAt: time.Date(2026, 3, 1, 12, 30, 15, 123456000, time.UTC),
		},
		{ID: "a1b2c3-00000000000000000000000004"},
		{Metadata: map[string]string{"path": "é/\u2028/<&>\"", "": ""}},
	} {
		data, err := json.Marshal(&ref)
		require.NoError(t, err)
		var got storage.StorageReference
		require.NoError(t, json.Unmarshal(data, &got))
		require.Equal(t, ref, got)
	}
	data, err := json.Marshal(storage.StorageReference{ID: "x", Backend: "file", Metadata: map[string]string{"k": "v"}, CreatedAt: time.Unix(0, 0).UTC()})
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"x","backend":"file","metadata":{"k":"v"},"created_at":"1970-01-01T00:00:00Z"}`, string(data))
	var alone storage.StorageReference
	require.NoError(t, json.Unmarshal([]byte(`{"id":"x"}`), &alone))
	require.Equal(t, storage.StorageReference{ID: "x"}, alone)
}

func TestNameHash(t *testing.T) {
	for path, want := range map[string]string{
		"a1b2c3-00000000000000000000000004.png":       "a1b2c3",
		"s/c/a1b2c3-00000000000000000000000004.png":   "a1b2c3",
		"s-1/c-2/a1b2c3-00000000000000000000000004.x": "a1b2c3",
	} {
		require.Equal(t, want, (&storage.BlobRow{Path: path}).NameHash())
	}
}

func uuidAt(t time.Time) []byte {
	u := storage.UUIDAt(t)
	return u[:]
}

func TestUUIDTimes(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	uuid := func(milli int64, fraction uint64) (u storage.UUID) {
		binary.BigEndian.PutUint64(u[:], uint64(milli)<<16|0x7000|fraction)
		u[8] = 0x80
		return u
	}
	require.Equal(t, at.Truncate(time.Millisecond), uuid(at.UnixMilli(), 0).Time())
	require.Equal(t, at.Truncate(time.Millisecond).Add(456704), uuid(at.UnixMilli(), 1784).Time())
	for _, milli := range []int64{at.UnixMilli(), at.UnixMilli() + 1} {
		for _, fraction := range []uint64{0, 1, 1783, 1784, 1785, 3905, 3906, 3907, 4095} {
			u := uuid(milli, fraction)
			for _, off := range []time.Duration{-time.Millisecond, -1, 0, 1, 255, 256, 257, time.Millisecond} {
				bound := u.Time().Add(off)
				require.Equal(t, !u.Time().Before(bound), bytes.Compare(u[:], uuidAt(bound)) > 0, "%v at %v", u.Time(), bound)
			}
		}
	}
	require.Zero(t, storage.UUIDAt(time.Time{}))
	require.Zero(t, storage.UUIDAt(time.UnixMilli(-1)))
	last := storage.UUIDAt(time.Date(11000, 1, 1, 0, 0, 0, 0, time.UTC))
	require.Equal(t, byte(0xff), last[15])
}

// The founder of a shared blob needs no list; whoever joined it does, and so does
// every blob of its own, which its digest does not lead to.
func TestListedDigest(t *testing.T) {
	founder, joined := storage.UUID{1}, storage.UUID{2}
	digest := storage.Digest{0xa1}
	path := "s/c/" + storage.ID{UUID: founder}.String() + ".png"
	shared := storage.BlobRow{Key: storage.DigestKey(digest), Digest: digest, Path: path}
	require.Zero(t, shared.ListedDigest(founder))
	require.Equal(t, digest, shared.ListedDigest(joined))
	own := storage.BlobRow{Key: storage.UUIDKey(founder), Digest: digest, Path: path}
	require.Equal(t, digest, own.ListedDigest(founder))
	own.Digest = storage.Digest{}
	require.Zero(t, own.ListedDigest(founder), "it is not known")
	scoped := storage.BlobRow{Key: storage.ScopedKey(digest, storage.Scope{1}), Digest: digest, Path: path}
	require.Equal(t, digest, scoped.ListedDigest(founder), "the digest alone does not lead to the blob")
	require.Equal(t, digest, scoped.ListedDigest(joined))
	got, ok := shared.Founder()
	require.True(t, ok)
	require.Equal(t, founder, got)
	for _, path := range []string{"", "x", "s/a1b2c3-x.png", "s/c/", "s/" + founder.String()} {
		b := storage.BlobRow{Path: path}
		_, ok := b.Founder()
		require.False(t, ok, path)
		require.False(t, b.NamedAfter(founder), path)
	}
}

func TestIDKinds(t *testing.T) {
	m := storage.MediaMetadata{ConversationID: "c", SessionID: "s", RunID: "r", UserID: "u"}
	for kind, want := range map[storage.IDKind]string{storage.ConversationIDs: "c", storage.SessionIDs: "s", storage.RunIDs: "r", storage.UserIDs: "u"} {
		require.Equal(t, want, kind.Of(&m))
	}
}

func TestFilterMatches(t *testing.T) {
	pair := storage.RefPair{
		Ref:  storage.RefRow{Metadata: storage.MediaMetadata{ConversationID: "c", SessionID: "s", RunID: "r"}},
		Blob: storage.BlobRow{Digest: storage.Digest{1}},
	}
	for _, f := range []storage.RefFilter{{}, {ConversationID: "c"}, {SessionID: "s", RunID: "r"}, {ConversationID: "c", SessionID: "s", RunID: "r", Digest: storage.Digest{1}}} {
		require.True(t, f.Matches(&pair), "%+v", f)
	}
	for _, f := range []storage.RefFilter{{ConversationID: "s"}, {UserID: "u"}, {SessionID: "s", RunID: "x"}, {SessionID: "S"}, {SessionID: "s\x00"}, {Digest: storage.Digest{2}}} {
		require.False(t, f.Matches(&pair), "%+v", f)
	}
}

func TestSidecarOfTombstones(t *testing.T) {
	a, b := storage.UUID{1}, storage.UUID{2}
	s := storage.Sidecar{Lines: []storage.SidecarLine{
		{Deleted: b}, // before the addition that it ends
		{First: true, Ref: &storage.RefRow{UUID: a}},
		{Ref: &storage.RefRow{UUID: b}},
	}}
	require.Equal(t, map[storage.UUID]*storage.RefRow{a: s.Lines[1].Ref}, s.Live())
	for _, m := range []storage.Mirror{{UUID: a}, {UUID: b}, {UUID: b, Deleted: true}} {
		require.NotNil(t, s.Line(&m), "%+v", m)
	}
	for _, m := range []storage.Mirror{{UUID: a, Deleted: true}, {UUID: storage.UUID{}}, {Deleted: true}} {
		require.Nil(t, s.Line(&m), "%+v", m)
	}
}
