package boltindex

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func TestPathsComeBack(t *testing.T) {
	const name = "a1b2c3-06h136fz4xsd3cms17x0ffg3jg"
	for path, rest := range map[string]string{
		"session/conversation/" + name + ".png": "session/conversation/.png",
		name + ".png":                           ".png",
		"s/" + name + ".tar.gz":                 "s/.tar.gz",
		"s/" + name:                             "s/" + name, // has no extension: as it is
		"s/a1b2c3-x.png":                        "s/a1b2c3-x.png",
		"s/A1b2c3" + name[6:] + ".png":          "s/A1b2c3" + name[6:] + ".png",
		"":                                      "",
	} {
		got, id := splitPath(path)
		require.Equal(t, rest, got)
		require.Equal(t, rest != path, id != nil)
		require.Equal(t, path, joinPath(got, id))
	}
}

// A row with a word that this program does not know is one of a later version.
func TestUnknownWord(t *testing.T) {
	for _, text := range append([]string{"", "image/x-of-tomorrow"}, words...) {
		code, rest := word(text)
		got, err := fromWord(code, rest)
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
	row, err := encode(&refRecord{Blob: []byte(someKey), TypeWord: uint64(len(words)) + 1})
	require.NoError(t, err)
	_, err = decodeRef(someUUID, row)
	require.ErrorIs(t, err, storage.ErrVersion)
	row, err = encode(&blobRecord{Path: "a/b", Organization: 1, MimeWord: uint64(len(words)) + 1})
	require.NoError(t, err)
	_, err = decodeBlob(someKey, row)
	require.ErrorIs(t, err, storage.ErrVersion)
}

func TestTimesComeBack(t *testing.T) {
	minted := time.UnixMilli(1764058800123).UTC()
	for _, at := range []time.Time{{}, minted, minted.Add(time.Microsecond), minted.Add(-time.Hour), time.UnixMicro(0).UTC(), time.UnixMicro(-1).UTC()} {
		require.Equal(t, at, timeSince(sinceMicro(at, minted.UnixMicro()), minted.UnixMicro()))
	}
	require.EqualValues(t, 1, sinceMicro(minted, minted.UnixMicro()), "a time that takes one byte")
}
