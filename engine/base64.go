package engine

import (
	stdbase64 "encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"unsafe"

	"github.com/segmentio/asm/base64"

	"github.com/mediabolt/mediabolt/storage"
)

// The vectorised base64 of github.com/segmentio/asm decodes and encodes several
// times as fast as the standard library, which costs more than SHA-256 does.
// It is used in this file alone and fuzzed against the standard library.

// encodeBase64 is data in the standard alphabet with padding.
func encodeBase64(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	out := make([]byte, base64.StdEncoding.EncodedLen(len(data)))
	base64.StdEncoding.Encode(out, data)
	return unsafe.String(&out[0], len(out)) // out is not written to again
}

// decodeBase64 decodes the standard or the URL-safe alphabet, padded or not,
// into buf, which has room for maxDecodedLen(len(s)) bytes. White space is
// ignored.
func decodeBase64(buf []byte, s string) ([]byte, error) {
	if s == "" {
		return buf[:0], nil
	}
	// The usual form first: looking for the others costs as much as decoding.
	if n, err := base64.StdEncoding.Decode(buf, bytesOf(s)); err == nil {
		return buf[:n], nil
	}
	s = noSpace.Replace(s)
	body := strings.TrimRight(s, "=")
	if pad := len(s) - len(body); pad > 2 || pad > 0 && len(s)%4 != 0 {
		return nil, fmt.Errorf("%w: base64 of %d characters with %d of padding", storage.ErrInvalidMedia, len(s), pad)
	}
	if body == "" {
		return buf[:0], nil
	}
	urlSafe := strings.ContainsAny(body, "-_")
	if urlSafe && strings.ContainsAny(body, "+/") {
		return nil, fmt.Errorf("%w: base64 that mixes the standard and the URL-safe alphabet", storage.ErrInvalidMedia)
	}
	fast, exact := base64.RawStdEncoding, stdbase64.RawStdEncoding
	if urlSafe {
		fast, exact = base64.RawURLEncoding, stdbase64.RawURLEncoding
	}
	n, err := fast.Decode(buf, bytesOf(body))
	if err != nil {
		if n, err = exact.Decode(buf, bytesOf(body)); err != nil {
			return nil, fmt.Errorf("%w: %w", storage.ErrInvalidMedia, err)
		}
	}
	return buf[:n], nil
}

// bytesOf is the bytes of a string that is not empty, to be read alone.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

var noSpace = strings.NewReplacer("\r", "", "\n", "", "\t", "", " ", "")

// maxDecodedLen is how many bytes n characters of base64 can mean at most.
func maxDecodedLen(n int) int { return (n + 3) / 4 * 3 }

// splitDataURL takes a data: URL (RFC 2397) apart. ok is false for a string that
// is none.
func splitDataURL(s string) (mimeType, payload string, isBase64, ok bool) {
	if len(s) < 5 || !strings.EqualFold(s[:5], "data:") {
		return "", "", false, false
	}
	head, payload, found := strings.Cut(s[5:], ",")
	if !found {
		return "", "", false, false
	}
	if n := len(head) - len(";base64"); n >= 0 && strings.EqualFold(head[n:], ";base64") {
		head, isBase64 = head[:n], true
	}
	if head == "" || head[0] == ';' {
		head = "text/plain" + head
	}
	return head, payload, isBase64, true
}

// decodeData decodes the Data of a MediaContent, into a buffer from grow. A
// data: URL's own MIME type comes back too.
func decodeData(s string, grow func(n int) []byte) (data []byte, mimeType string, err error) {
	mimeType, payload, isBase64, isURL := splitDataURL(s)
	switch {
	case !isURL && len(s) >= 5 && strings.EqualFold(s[:5], "data:"):
		return nil, "", fmt.Errorf("%w: data: URL without a comma", storage.ErrInvalidMedia)
	case !isURL:
		payload = s
	case !isBase64:
		text, err := url.PathUnescape(payload)
		if err != nil {
			return nil, "", fmt.Errorf("%w: data: URL: %w", storage.ErrInvalidMedia, err)
		}
		return append(grow(len(text))[:0], text...), mimeType, nil
	case strings.Contains(payload, "%"):
		if payload, err = url.PathUnescape(payload); err != nil {
			return nil, "", fmt.Errorf("%w: data: URL: %w", storage.ErrInvalidMedia, err)
		}
	}
	data, err = decodeBase64(grow(maxDecodedLen(len(payload))), payload)
	return data, mimeType, err
}
