package blobs

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// sampleBlob and sampleRef have every field set.
func sampleBlob() storage.BlobRow {
	digest := storage.Digest{0xa1, 0xb2, 0xc3, 31: 9}
	id := storage.ID{Hash: [3]byte{0xa1, 0xb2, 0xc3}, UUID: storage.UUID{0: 1, 15: 1}}
	return storage.BlobRow{
		Key: storage.DigestKey(digest), Path: "s/c/" + id.String() + ".png", Organization: storage.OrganizationBySession,
		Size: 1 << 40, CRC: 0x00c0ffee, Digest: digest, MimeType: "image/png", Refs: 3,
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC),
	}
}

func sampleRef(n byte) storage.RefRow {
	return storage.RefRow{
		UUID: storage.UUID{0: 1, 15: n}, Blob: sampleBlob().Key, Type: "image", MimeType: "image/png",
		Metadata: storage.MediaMetadata{
			ConversationID: "c", SessionID: "s\x00<&>\u2028", RunID: "r", UserID: "ü@example.com", MessageIndex: 12, ContentIndex: -3,
			CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC),
			Labels:    map[string]string{"v": "{\"v\":1}", "w": "a \"b\"\n.png"},
		},
	}
}

func mustEncode(t testing.TB, blob *storage.BlobRow, l *storage.SidecarLine) []byte {
	t.Helper()
	line := mustEncodeAny(t, blob, l)
	require.Equal(t, 1, bytes.Count(line, []byte{'\n'}))
	require.True(t, bytes.HasSuffix(line, []byte("\"}\n")))
	return line
}

// sampleSidecar is a sidecar of a first line, another one and a tombstone.
func sampleSidecar(t testing.TB) (lines [][]byte) {
	t.Helper()
	blob := sampleBlob()
	one, two := sampleRef(1), sampleRef(2)
	for _, l := range []storage.SidecarLine{{First: true, Ref: &one}, {Ref: &two}, {Deleted: one.UUID}} {
		lines = append(lines, mustEncode(t, &blob, &l))
	}
	return lines
}

func TestSidecarRoundTrip(t *testing.T) {
	lines := sampleSidecar(t)
	s := decodeSidecar(bytes.Join(lines, nil))
	second := int64(len(lines[0]))
	third := second + int64(len(lines[1]))
	blob, one, two := sampleBlob(), sampleRef(1), sampleRef(2)
	blob.Path, blob.Refs = "", 0
	two.Blob = "" // only the line that tells of the blob knows it
	require.Equal(t, storage.Sidecar{
		Blob: blob, Lines: []storage.SidecarLine{{First: true, Ref: &one}, {Ref: &two, At: second}, {Deleted: one.UUID, At: third}},
	}, s)
	require.Len(t, s.Live(), 1)
	require.Contains(t, s.Live(), two.UUID)
	require.Zero(t, decodeSidecar(nil))
}

func TestSidecarLineFields(t *testing.T) {
	own := sampleBlob()
	own.Key, own.Digest = storage.UUIDKey(storage.UUID{15: 7}), storage.Digest{}
	bare := storage.BlobRow{Key: own.Key, Path: own.Path}
	extreme := sampleBlob()
	extreme.Size, extreme.CRC, extreme.CreatedAt = math.MaxInt64, math.MaxUint32, time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
	long := sampleRef(3)
	long.Metadata.SessionID = strings.Repeat("\x00", storage.MaxIDLength)
	long.Metadata.Labels = nil
	for _, blob := range []storage.BlobRow{sampleBlob(), own, bare, extreme} {
		for _, ref := range []storage.RefRow{sampleRef(1), {UUID: storage.UUID{15: 9}}, long} {
			ref.Blob = blob.Key
			line := mustEncode(t, &blob, &storage.SidecarLine{First: true, Ref: &ref})
			l, got, err := decodeLine(bytes.TrimSuffix(line, []byte{'\n'}))
			require.NoError(t, err)
			want := blob
			want.Path, want.Refs = "", 0
			require.Equal(t, want, got)
			require.Equal(t, storage.SidecarLine{First: true, Ref: &ref}, l)
		}
	}
}

// A damaged line is never read as another one, whichever byte of it changed
// into whichever other.
func TestEveryByteOfALineCounts(t *testing.T) {
	for _, line := range sampleSidecar(t) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		want, wantBlob, err := decodeLine(line)
		require.NoError(t, err)
		for i, good := range line {
			for b := range 256 {
				line[i] = byte(b)
				got, blob, err := decodeLine(line)
				if err == nil && !(reflect.DeepEqual(want, got) && reflect.DeepEqual(wantBlob, blob)) {
					require.Fail(t, "another line", "byte %d as %q: %+v %+v", i, b, got, blob)
				}
				if err == nil && i < len(line)-crcTail && byte(b) != good {
					require.Fail(t, "not noticed", "byte %d as %q", i, b)
				}
			}
			line[i] = good
		}
		for n := range line {
			_, _, err := decodeLine(line[:n])
			require.Error(t, err, "cut to %d bytes", n)
		}
	}
}

// nowhere takes from lines where they begin: one whose newline has changed begins
// where the line before it does.
func nowhere(lines []storage.SidecarLine) {
	for i := range lines {
		lines[i].At = 0
	}
}

// One changed byte of a sidecar costs one line at most, a changed newline too.
func TestOneByteCostsOneLine(t *testing.T) {
	data := bytes.Join(sampleSidecar(t), nil)
	whole := decodeSidecar(data)
	nowhere(whole.Lines)
	for i, good := range data {
		for _, b := range []byte{good ^ 1, good ^ 0x20, good ^ 0x80, '\n', 0, '{'} {
			data[i] = b
			s := decodeSidecar(data)
			require.GreaterOrEqual(t, len(s.Lines), 2, "byte %d as %q", i, b)
			nowhere(s.Lines)
			for _, l := range s.Lines {
				require.Contains(t, whole.Lines, l)
			}
			if len(s.Lines) < 3 {
				require.Positive(t, s.Damaged)
				require.Error(t, s.Cause)
			}
		}
		data[i] = good
	}
}

// A crash can leave the beginning of a line, and the next append comes right
// behind it.
func TestTornLines(t *testing.T) {
	lines := sampleSidecar(t)
	for cut := range len(lines[1]) - 1 {
		torn := lines[1][:cut]
		s := decodeSidecar(append(append([]byte{}, lines[0]...), torn...))
		require.Len(t, s.Lines, 1, "cut to %d bytes", cut)
		require.Equal(t, cut > 0, s.Torn)
		require.Equal(t, cut > 0, s.Damaged > 0)

		for _, between := range []string{"", "\n"} {
			s = decodeSidecar(bytes.Join([][]byte{lines[0], torn, []byte(between), lines[2], lines[1]}, nil))
			require.Len(t, s.Lines, 3, "cut to %d bytes, then %q", cut, between)
			require.False(t, s.Torn)
		}
	}
	// The last line is whole but for its newline.
	s := decodeSidecar(append(append([]byte{}, lines[0]...), bytes.TrimSuffix(lines[1], []byte{'\n'})...))
	require.Len(t, s.Lines, 2)
	require.True(t, s.Torn)
	require.Zero(t, s.Damaged)
}

// The first line may be lost; the others still tell of their references.
func TestSidecarWithoutItsFirstLine(t *testing.T) {
	lines := sampleSidecar(t)
	s := decodeSidecar(bytes.Join(lines[1:], nil))
	require.Empty(t, s.Blob.Key)
	require.Len(t, s.Live(), 1)
}

func TestUnknownSidecarVersion(t *testing.T) {
	line := sampleSidecar(t)[1]
	later := bytes.Replace(line, []byte(`{"v":1`), []byte(`{"v":2`), 1)
	s := decodeSidecar(resum(later))
	require.Empty(t, s.Lines)
	require.Equal(t, 1, s.Damaged)
	require.ErrorIs(t, s.Cause, storage.ErrVersion)
}

// resum gives a changed line the checksum that fits it.
func resum(line []byte) []byte {
	i := bytes.LastIndex(line, crcField)
	return appendSum(append([]byte{}, line[:i]...))
}

// What is written in other words than ours is refused.
func TestForeignLines(t *testing.T) {
	line := string(sampleSidecar(t)[0])
	for _, replace := range [][2]string{
		{`"key":"d`, `"key":"x`}, {`"crc32c":"00c0ffee"`, `"crc32c":"-1"`}, {`"sha256":"a1`, `"sha256":"zz`},
		{`"id":"a1b2c3-`, `"id":"../../`}, {`"ref":{`, `"other":{`}, {`"size":`, `"size":"`}, {`"size":`, `"size":1e99`},
	} {
		require.Contains(t, line, replace[0])
		changed := strings.Replace(line, replace[0], replace[1], 1)
		s := decodeSidecar(resum([]byte(changed)))
		require.Empty(t, s.Lines, replace[1])
		require.Error(t, s.Cause)
	}
	both := resum([]byte(`{"v":1,"ref":{"id":"a1b2c3-00000000000000000000000004"},"deleted":"a1b2c3-00000000000000000000000004","crc":"00000000"}`))
	require.Empty(t, decodeSidecar(both).Lines)
}

// Beginnings of lines without end cost time in proportion to their length.
func TestHostileSidecarIsReadInReasonableTime(t *testing.T) {
	data := bytes.Repeat(lineStart, 4<<20/len(lineStart))
	data = append(data, `,"crc":"00000000"}`...)
	done := make(chan storage.Sidecar, 1)
	go func() { done <- decodeSidecar(data) }()
	select {
	case s := <-done:
		require.Empty(t, s.Lines)
	case <-time.After(10 * time.Second):
		require.Fail(t, "4 MiB are not read within 10 s")
	}
}

func FuzzDecodeSidecar(f *testing.F) {
	lines := sampleSidecar(f)
	f.Add(bytes.Join(lines, nil))
	f.Add(append(append([]byte{}, lines[0][:40]...), lines[1]...))
	f.Add(lines[2])
	f.Add([]byte("\n\n\n"))
	f.Add([]byte(`{"v":1,"crc":"00000000"}`))
	f.Add(appendSum([]byte(`{"v":1,"deleted":"a1b2c3-00000000000000000000000004"`)))
	f.Add(appendSum([]byte(`{"v":1`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := decodeSidecar(data)
		require.Equal(t, len(data) > 0 && data[len(data)-1] != '\n', s.Torn)
		require.LessOrEqual(t, len(s.Lines)*(len(lineStart)+len(crcField)+crcTail), len(data))
		require.LessOrEqual(t, s.Damaged, len(data))
		require.Equal(t, s.Damaged > 0, s.Cause != nil)
		require.LessOrEqual(t, len(s.Live()), len(s.Lines))
		again, _, ok := bytes.Cut(data, []byte{'\n'})
		if l, blob, err := decodeLine(again); ok && err == nil {
			// What decodes encodes to a line that decodes to the same.
			blob.Path = "a1b2c3-x"
			line := mustEncodeAny(t, &blob, &l)
			same, _, err := decodeLine(bytes.TrimSuffix(line, []byte{'\n'}))
			require.NoError(t, err)
			require.Equal(t, l.First, same.First)
			require.Equal(t, l.Deleted, same.Deleted)
			if l.Ref != nil {
				require.Equal(t, l.Ref.UUID, same.Ref.UUID)
				require.Equal(t, l.Ref.Metadata.SessionID, same.Ref.Metadata.SessionID)
			}
		}
	})
}

func mustEncodeAny(t testing.TB, blob *storage.BlobRow, l *storage.SidecarLine) []byte {
	t.Helper()
	var line bytes.Buffer
	require.NoError(t, encodeLine(&line, blob, l))
	return line.Bytes()
}

// appendSum ends a line whose body is given with its checksum.
func appendSum(body []byte) []byte {
	sum := crc32.Checksum(body, castagnoli)
	return fmt.Appendf(body, "%s%08x\"}\n", crcField, sum)
}
