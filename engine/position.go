package engine

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/mediabolt/mediabolt/storage"
)

// VerifyPosition is a place in a Verify: all blobs up to there have been looked
// at, and what was found has been told. It is text that may be kept and passed
// on, in the URL-safe alphabet of base64, and names the key of a blob.
//
// Its bytes, numbers big-endian, are
//
//	0   1  version, 1
//	1   1  depth: 'q' quick, 'c' checksum, 'd' deep
//	2   8  sample in percent, IEEE 754
//	10  8  seed
//	18  8  blobs looked at
//	26  8  bytes read
//	34  n  blob key
//	    4  CRC-32C of all before
type VerifyPosition string

const (
	positionVersion = 1
	positionHead    = 34
)

// depthBytes is how a position says a depth.
var depthBytes = map[VerifyDepth]byte{DepthQuick: 'q', DepthChecksum: 'c', DepthDeep: 'd'}

// place is what a VerifyPosition says.
type place struct {
	depth        VerifyDepth
	sample       float64
	seed         uint64
	blobs, bytes int64
	key          storage.BlobKey
}

func (p *place) position() VerifyPosition {
	if p.key == "" {
		return ""
	}
	b := []byte{positionVersion, depthBytes[p.depth]}
	for _, n := range [...]uint64{math.Float64bits(p.sample), p.seed, uint64(p.blobs), uint64(p.bytes)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, p.key...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return VerifyPosition(base64.RawURLEncoding.EncodeToString(b))
}

// place reads a position, or is ErrInvalidQuery.
func (v VerifyPosition) place() (p place, err error) {
	invalid := func(why string) (place, error) {
		return place{}, fmt.Errorf("%w: position %.120q: %s", storage.ErrInvalidQuery, string(v), why)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(v))
	switch {
	case err != nil || len(b) == 0:
		return invalid("is none that a verification gave")
	case b[0] != positionVersion:
		return invalid(fmt.Sprintf("version %d, this program knows %d", b[0], positionVersion))
	case len(b) < positionHead+crc32.Size:
		return invalid("is cut short")
	}
	body := b[:len(b)-crc32.Size]
	if binary.BigEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return invalid("is cut short, or not as a verification gave it")
	}
	for depth, c := range depthBytes {
		if c == body[1] {
			p.depth = depth
		}
	}
	var n [4]uint64
	for i := range n {
		n[i] = binary.BigEndian.Uint64(body[2+8*i:])
	}
	p.sample, p.seed, p.blobs, p.bytes = math.Float64frombits(n[0]), n[1], int64(n[2]), int64(n[3])
	p.key = storage.BlobKey(slices.Clone(body[positionHead:]))
	if p.depth == "" || !p.key.Valid() || !(p.sample > 0 && p.sample <= 100) || p.blobs < 0 || p.bytes < 0 || p.position() != v {
		return invalid("is not as a verification gave it")
	}
	return p, nil
}
