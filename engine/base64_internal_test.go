package engine

import (
	"bytes"
	stdbase64 "encoding/base64"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// standardEncodings are the four forms that Data may have.
var standardEncodings = [...]*stdbase64.Encoding{
	stdbase64.StdEncoding, stdbase64.RawStdEncoding, stdbase64.URLEncoding, stdbase64.RawURLEncoding,
}

// standardDecode is what the standard library makes of s in the first of the
// four encodings that accepts it, white space left out.
func standardDecode(s string) (data []byte, ok bool) {
	s = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(s)
	for _, enc := range standardEncodings {
		if data, err := enc.DecodeString(s); err == nil {
			return data, true
		}
	}
	return nil, false
}

// canary is what the bytes behind a decoder's buffer hold: the vectorised
// decoder is assembly, which no bounds check stops.
var canary = bytes.Repeat([]byte{0xa5}, 64)

// requireDecodesLikeStandard requires that decodeBase64 agrees with the
// standard library on s, and writes nothing past its buffer.
func requireDecodesLikeStandard(t testing.TB, s string) {
	t.Helper()
	n := maxDecodedLen(len(s))
	room := append(make([]byte, n, n+len(canary)), canary...)
	got, err := decodeBase64(room[:n:n], s)
	require.Equal(t, canary, room[n:], "bytes behind the buffer for %q", s)
	want, ok := standardDecode(s)
	if !ok {
		require.ErrorIs(t, err, storage.ErrInvalidMedia, "no encoding accepts %q", s)
		return
	}
	require.NoError(t, err, "%q", s)
	require.True(t, bytes.Equal(want, got), "%q: decoded %x, want %x", s, got, want)
}

// noise is n bytes that look random and are the same in every run.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b) // is documented to never fail
	return b
}

func FuzzBase64(f *testing.F) {
	for _, n := range []int{0, 1, 2, 3, 4, 20, 31, 32, 33, 48, 64, 95, 96, 200} {
		for _, enc := range standardEncodings {
			f.Add(enc.EncodeToString(noise(n)))
		}
	}
	for _, s := range []string{
		"=", "==", "====", "A", "AA=", "AA==A", "AA==AA==", "AAA==", "AAAA=", "+-", "/_AA", "A\x00AA", "AAA\xff", "YQ\v==",
		"YQ==\n", " Y Q = = ", "YW\r\nJj", strings.Repeat("A", 64) + "\n" + strings.Repeat("_", 64),
		strings.Repeat("A", 63) + "-" + strings.Repeat("/", 64), strings.Repeat(" \n", 100) + "YQ",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		requireDecodesLikeStandard(t, s)
		encoded := encodeBase64([]byte(s))
		require.Equal(t, stdbase64.StdEncoding.EncodeToString([]byte(s)), encoded)
		for _, enc := range standardEncodings {
			requireDecodesLikeStandard(t, enc.EncodeToString([]byte(s)))
		}
	})
}

func TestBase64OfEveryLengthIsTheStandardLibrarys(t *testing.T) {
	for n := range 300 {
		data := noise(n)
		require.Equal(t, stdbase64.StdEncoding.EncodeToString(data), encodeBase64(data))
		for _, enc := range standardEncodings {
			requireDecodesLikeStandard(t, enc.EncodeToString(data))
		}
	}
}

// One wrong character must show wherever it stands: the decoder works on
// blocks, and treats the last ones in another way.
func TestBase64RefusesAWrongCharacterAnywhere(t *testing.T) {
	t.Parallel()
	for _, length := range []int{4, 44, 131} {
		good := []byte(stdbase64.RawStdEncoding.EncodeToString(noise(length)))
		for i := range good {
			was := good[i]
			for c := range 256 {
				good[i] = byte(c)
				if _, ok := standardDecode(string(good)); !ok || c%16 == i%16 {
					requireDecodesLikeStandard(t, string(good))
				}
			}
			good[i] = was
		}
	}
}

func TestBase64IgnoresTheSameWhiteSpaceInEveryCompany(t *testing.T) {
	for _, s := range []string{"YQ\v==", "YQ\v ==", "YQ\f==", "YQ\f\n==", "YQ\u00a0==", "YQ\u00a0\n=="} {
		requireDecodesLikeStandard(t, s)
	}
}

func FuzzDataURL(f *testing.F) {
	f.Add("data:,hello%20world", "image/png", []byte{1, 2, 3})
	f.Add("DATA:image/png;BASE64,iVBORw0KGgo=", "", []byte{})
	f.Add("data:text/plain;charset=utf-8;base64,YQ%3D%3D", "text/plain;charset=utf-8", []byte("a"))
	f.Add("data:;base64", ";base64", []byte("x"))
	f.Add("data:%zz,%zz", "a,b", bytes.Repeat([]byte{0xff}, 100))
	f.Add("data:;base64;base64,", "audio/x;base64", []byte("--"))
	f.Fuzz(func(t *testing.T, raw, mimeType string, content []byte) {
		fresh := func(n int) []byte { return make([]byte, n) }
		got, _, err := decodeData(raw, fresh)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidMedia)
		}
		require.LessOrEqual(t, len(got), len(raw))

		if strings.Contains(mimeType, ",") {
			return // ends the header of a data: URL
		}
		want := mimeType
		if want == "" || want[0] == ';' {
			want = "text/plain" + want
		}
		got, declared, err := decodeData("data:"+mimeType+";base64,"+encodeBase64(content), fresh)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "decoded %x, want %x", got, content)
		require.Equal(t, want, declared)
		if n := len(mimeType) - len(";base64"); n >= 0 && strings.EqualFold(mimeType[n:], ";base64") {
			return // is itself the mark of base64
		}
		got, declared, err = decodeData("data:"+mimeType+","+url.PathEscape(string(content)), fresh)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "decoded %x, want %x", got, content)
		require.Equal(t, want, declared)
	})
}
