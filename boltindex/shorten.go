package boltindex

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// What makes rows short: an index of 300,000 references to as many blobs, with all
// four IDs set and every mirror owed, took 910 bytes for each without it, and 824
// with it and hashes of 6 bytes.

// words are what rows say by its place here, from 1. It is part of the format:
// words may be added at the end, none may go.
var words = []string{
	"image", "audio", "video", "document",
	"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/heic", "image/tiff", "image/bmp", "image/svg+xml",
	"audio/mpeg", "audio/mp4", "audio/ogg", "audio/wav", "audio/x-wav", "audio/webm", "audio/flac", "audio/aac",
	"video/mp4", "video/webm", "video/quicktime", "video/mpeg", "video/x-matroska", "video/x-msvideo",
	"application/pdf", "application/json", "application/zip", "application/octet-stream", "application/xml",
	"text/plain", "text/markdown", "text/html", "text/csv", "text/plain; charset=utf-8", "text/html; charset=utf-8",
	"retain", "retain-30days", "retain-12hours", "delete-after-10min",
}

// word is a text's place among the words, or else the text.
func word(text string) (code uint64, rest string) {
	if i := slices.Index(words, text); i >= 0 {
		return uint64(i) + 1, ""
	}
	return 0, text
}

// fromWord is the inverse of word.
func fromWord(code uint64, rest string) (string, error) {
	switch {
	case code == 0:
		return rest, nil
	case code > uint64(len(words)):
		return "", fmt.Errorf("%w: row with word %d, this program knows %d: use a newer mediabolt", storage.ErrVersion, code, len(words))
	}
	return words[code-1], nil
}

// nameLength is that of the name of a blob's file in bytes: hash and UUID.
const nameLength = 3 + 16

// splitPath takes the ID out of the name of a blob's file. The name is nil where
// it has none.
func splitPath(path string) (rest string, name []byte) {
	at := strings.LastIndexByte(path, '/') + 1
	dot := strings.IndexByte(path[at:], '.')
	if dot < 0 {
		return path, nil
	}
	id, err := storage.ParseID(path[at : at+dot])
	if err != nil {
		return path, nil
	}
	name = append(append(make([]byte, 0, nameLength), id.Hash[:]...), id.UUID[:]...)
	return path[:at] + path[at+dot:], name
}

// joinPath is the inverse of splitPath.
func joinPath(rest string, name []byte) string {
	if len(name) != nameLength {
		return rest
	}
	at := strings.LastIndexByte(rest, '/') + 1
	return rest[:at] + nameID(name).String() + rest[at:]
}

func nameID(name []byte) (id storage.ID) {
	copy(id.Hash[:], name)
	copy(id.UUID[:], name[len(id.Hash):])
	return id
}

// mintedAt is the time in a UUID of version 7, in microseconds since 1970, from
// which the times of its row count.
func mintedAt(u storage.UUID) int64 {
	const milli = 1000
	return int64(binary.BigEndian.Uint64(append([]byte{0, 0}, u[:6]...))) * milli
}

// sinceMicro is a time in a row: 0 for the zero time, which takes no room then,
// and otherwise microseconds since base, one more from base on.
func sinceMicro(t time.Time, base int64) int64 {
	if t.IsZero() {
		return 0
	}
	us := t.UnixMicro() - base
	if us >= 0 {
		us++
	}
	return us
}

// timeSince is the inverse of sinceMicro.
func timeSince(us, base int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	if us > 0 {
		us--
	}
	return time.UnixMicro(us + base).UTC()
}

// listHash is how many bytes of its SHA-256 an ID is in its lists. IDs that have
// them in common share a list, and are told apart by the rows of references. IDs
// takes the first reference of a list for all: with 6 bytes two of "session-1" to
// "session-10000000" share one, with 8 that happens to nobody who does not look
// for it through 4 billion IDs of his own.
const listHash = 8

// listOf is what the keys of an ID's list begin with.
func listOf(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:listHash:listHash]
}
