package boltindex

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

var (
	someKey  = storage.DigestKey(storage.Digest{0xa1, 0xb2, 0xc3})
	someUUID = storage.UUID{6: 0x70, 8: 0x80, 15: 1}
)

func mustRow(t testing.TB, row []byte, err error) []byte {
	t.Helper()
	require.NoError(t, err)
	return row
}

// What decodes encodes to a row that decodes to the same.
func FuzzDecodeBlob(f *testing.F) {
	row, err := encodeBlob(&storage.BlobRow{
		Key: someKey, Path: "s/c/a1b2c3-x.png", Organization: storage.OrganizationBySession, Size: 3, CRC: 4,
		MimeType: "image/png", Refs: 2,
	})
	f.Add([]byte(someKey), mustRow(f, row, err))
	own := storage.UUIDKey(someUUID)
	row, err = encodeBlob(&storage.BlobRow{Key: own, Path: "a1b2c3-x.png", Organization: storage.OrganizationFlat, Digest: storage.Digest{1}, Size: 1 << 50})
	f.Add([]byte(own), mustRow(f, row, err))
	f.Add([]byte("x"), mustRow(f, row, err))
	f.Add([]byte(own), []byte{rowVersion, 0xa0})
	f.Add([]byte(own), []byte{rowVersion})
	f.Add([]byte(own), []byte{rowVersion, 0xbf, 0xff})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, row []byte) {
		b, err := decodeBlob(storage.BlobKey(key), row)
		if err != nil {
			requireRowError(t, row, err)
			return
		}
		again, err := encodeBlob(&b)
		require.NoError(t, err)
		c, err := decodeBlob(b.Key, again)
		require.NoError(t, err)
		require.Equal(t, b, c)
	})
}

func FuzzDecodeRef(f *testing.F) {
	row, err := encodeRef(&storage.RefRow{
		UUID: someUUID, Blob: someKey, Type: "image", MimeType: "image/png",
		Metadata: storage.MediaMetadata{SessionID: "s\x00", UserID: "u", MessageIndex: -1, Labels: map[string]string{"k": "v"}},
	})
	f.Add(someUUID[:], mustRow(f, row, err))
	row, err = encodeRef(&storage.RefRow{Blob: storage.UUIDKey(someUUID)})
	f.Add(someUUID[:], mustRow(f, row, err))
	f.Add([]byte{}, []byte{rowVersion + 1, 0xa0})
	f.Add([]byte{}, []byte{rowVersion, 0xa1, 0x01, 0x40})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, id, row []byte) {
		var u storage.UUID
		copy(u[:], id)
		ref, err := decodeRef(u, row)
		if err != nil {
			requireRowError(t, row, err)
			return
		}
		again, err := encodeRef(&ref)
		require.NoError(t, err)
		other, err := decodeRef(u, again)
		require.NoError(t, err)
		if len(ref.Metadata.Labels) == 0 {
			ref.Metadata.Labels = nil // an empty map is not written
		}
		require.Equal(t, ref, other)
	})
}

func FuzzDecodeMirror(f *testing.F) {
	for _, m := range []storage.Mirror{
		{UUID: someUUID, Blob: someKey}, {UUID: someUUID, Deleted: true, Blob: storage.UUIDKey(someUUID)},
	} {
		f.Add(m.Key(), []byte(m.Blob))
	}
	f.Add([]byte("0123456789abcdef*"), []byte(someKey))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m, err := storage.ParseMirror(key, storage.BlobKey(value))
		if err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupted)
			return
		}
		require.Equal(t, key, m.Key())
		require.Equal(t, value, []byte(m.Blob))
	})
}

func FuzzCounters(f *testing.F) {
	row, err := encode(&countersRecord{Refs: 3, Blobs: 2, LogicalBytes: 30, PhysicalBytes: 20})
	f.Add(mustRow(f, row, err))
	f.Add([]byte{rowVersion, 0xa1, 0x01, 0x20})
	f.Add([]byte{rowVersion, 0xa2, 0x01, 0x01, 0x01, 0x02})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		var r, other countersRecord
		if err := decode(row, &r); err != nil {
			requireRowError(t, row, err)
			return
		}
		again, err := encode(&r)
		require.NoError(t, err)
		require.NoError(t, decode(again, &other))
		require.Equal(t, r, other)
	})
}

// requireRowError requires that a row which was refused says why: ErrVersion
// if its version is another, or else ErrCorrupted.
func requireRowError(t *testing.T, row []byte, err error) {
	t.Helper()
	if len(row) > 0 && row[0] != rowVersion {
		require.ErrorIs(t, err, storage.ErrVersion)
		require.NotErrorIs(t, err, storage.ErrCorrupted)
		return
	}
	require.ErrorIs(t, err, storage.ErrCorrupted)
}
