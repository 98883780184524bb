package storage

import (
	"encoding/hex"
	"fmt"
)

// Digest is the SHA-256 of a blob's bytes (FIPS 180-4). The zero Digest means
// "not known".
type Digest [32]byte

// ParseDigest reads 64 hexadecimal digits, with or without a leading
// "sha256:". Anything else is ErrInvalidRef.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits := s
	if len(digits) == len("sha256:")+2*len(d) && digits[:7] == "sha256:" {
		digits = digits[7:]
	}
	if len(digits) != 2*len(d) {
		return Digest{}, fmt.Errorf("%w: digest %.80q: want 64 hexadecimal digits", ErrInvalidRef, s)
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("%w: digest %q: %w", ErrInvalidRef, s, err)
	}
	return d, nil
}

// String is the digest as 64 lower-case hexadecimal digits, empty for the
// zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// IsZero says whether the digest is not known.
func (d Digest) IsZero() bool { return d == Digest{} }
