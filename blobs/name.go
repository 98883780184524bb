package blobs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mediabolt/mediabolt/storage"
)

// Directories of references that lack the ID. No ID becomes one of these.
const (
	noSession      = "no-session"
	noConversation = "no-conversation"
	noRun          = "no-run"
)

// maxElement bounds a path element in bytes: with three of them and a file
// name, a path stays below what every system takes.
const maxElement = 120

// cutMark stands between the beginning of a name that was too long and the
// hash of the whole. No escape begins like that, for 'h' is no hexadecimal
// digit.
const cutMark = "%h"

// Dir is the directory, relative to the base directory, of a blob that is
// first stored with metadata m: "." in the flat mode.
func Dir(mode storage.OrganizationMode, m *storage.MediaMetadata) string {
	switch mode {
	case storage.OrganizationByConversation:
		return element(m.ConversationID, noConversation)
	case storage.OrganizationBySession:
		return path.Join(element(m.SessionID, noSession), element(m.ConversationID, noConversation))
	case storage.OrganizationByRun:
		return path.Join(element(m.RunID, noRun), element(m.SessionID, noSession), element(m.ConversationID, noConversation))
	}
	return "."
}

// FileName is the name of a blob: "{hash6}-{short uuid}" and the extension of
// its MIME type.
func FileName(id storage.ID, mimeType string) string {
	return id.String() + extension(mimeType)
}

// parseFileName is the ID in the name of a blob or of its sidecar. A copy that a
// person made beside it ("….png.bak") is neither.
func parseFileName(name string) (id storage.ID, sidecar, ok bool) {
	name, sidecar = strings.CutSuffix(name, metaSuffix)
	stem, ext, dot := strings.Cut(name, ".")
	id, err := storage.ParseID(stem)
	return id, sidecar, err == nil && dot && ext != "" && !strings.ContainsAny(ext, ".~ ")
}

// element is an ID as one path element, or missing for the empty ID. Distinct
// IDs become distinct elements, and ordinary IDs look like themselves: what
// could leave the directory, hide, or be refused by some system is escaped as
// %XX byte by byte, and what is too long is cut and ends in its hash.
func element(id, missing string) string {
	if id == "" {
		return missing
	}
	var b strings.Builder
	for i, r := range id {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(id[i:])
		}
		if mustEscape(id, i, size, r) {
			for _, c := range []byte(id[i : i+size]) {
				fmt.Fprintf(&b, "%%%02x", c)
			}
		} else {
			b.WriteRune(r)
		}
	}
	s := b.String()
	if len(s) <= maxElement {
		return s
	}
	return cut(s, id)
}

func mustEscape(id string, i, size int, r rune) bool {
	first, last := i == 0, i+size == len(id)
	switch {
	case r == utf8.RuneError, !unicode.IsPrint(r), strings.ContainsRune(`%/\:*?"<>|`, r):
		return true
	case r == ' ' || r == '.':
		return first || last
	case first:
		// One escaped character is enough to make another name of it.
		return reserved(id)
	}
	return false
}

// reserved says whether a name means something to us or to Windows.
func reserved(id string) bool {
	switch id {
	case noSession, noConversation, noRun, "lost+found":
		return true
	}
	if _, _, ok := parseFileName(id); ok {
		return true
	}
	stem, _, _ := strings.Cut(strings.ToUpper(id), ".")
	switch stem = strings.TrimRight(stem, " "); stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	device := strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")
	return device && utf8.RuneCountInString(stem) == 4 && strings.ContainsAny(stem[3:], "0123456789¹²³")
}

// cut shortens an escaped name, between two characters, and adds half of the
// SHA-256 of the ID: enough to make a collision that nobody can find.
func cut(escaped, id string) string {
	sum := sha256.Sum256([]byte(id))
	keep := maxElement - len(cutMark) - 32
	for keep > 0 && !utf8.RuneStart(escaped[keep]) {
		keep--
	}
	if i := strings.LastIndexByte(escaped[:keep], '%'); i >= 0 && keep-i < 3 {
		keep = i
	}
	return escaped[:keep] + cutMark + hex.EncodeToString(sum[:16])
}
