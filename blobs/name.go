package blobs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
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

// Levels are the kinds of ID of which a mode makes directories, the outermost
// first.
func Levels(mode storage.OrganizationMode) []storage.IDKind {
	switch mode {
	case storage.OrganizationByConversation:
		return []storage.IDKind{storage.ConversationIDs}
	case storage.OrganizationBySession:
		return []storage.IDKind{storage.SessionIDs, storage.ConversationIDs}
	case storage.OrganizationByRun:
		return []storage.IDKind{storage.RunIDs, storage.SessionIDs, storage.ConversationIDs}
	}
	return nil
}

// Dir is the directory, relative to the base directory, of a blob that is
// first stored with metadata m: "." in the flat mode.
func Dir(mode storage.OrganizationMode, m *storage.MediaMetadata) string {
	dir := "."
	for i, kind := range Levels(mode) {
		if i == 0 {
			dir = Element(kind, kind.Of(m))
		} else {
			dir += "/" + Element(kind, kind.Of(m))
		}
	}
	return dir
}

// Element is the directory of an ID of a kind that modes make directories of, or
// of its lack where the ID is empty.
func Element(kind storage.IDKind, id string) string { return element(id, missing(kind)) }

// ElementID is the ID whose Element a name is. Of a name that was cut it is not
// known: cut says that some ID may have it.
func ElementID(kind storage.IDKind, name string) (id string, cut, ok bool) {
	if name == missing(kind) {
		return "", false, true
	}
	if at := strings.LastIndex(name, cutMark); at >= 0 && len(name)-at == len(cutMark)+cutHash {
		return "", true, false
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false, false
		}
		c, err := strconv.ParseUint(name[i+1:i+3], 16, 8)
		if err != nil {
			return "", false, false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	// Only one name is that of an ID: not one that escapes what needs no escape.
	id = b.String()
	return id, false, id != "" && Element(kind, id) == name
}

func missing(kind storage.IDKind) string {
	switch kind {
	case storage.SessionIDs:
		return noSession
	case storage.RunIDs:
		return noRun
	}
	return noConversation
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
	stem, ext, _ := strings.Cut(name, ".")
	if ext == "" || strings.ContainsAny(ext, ".~ ") {
		return id, sidecar, false
	}
	id, err := storage.ParseID(stem)
	return id, sidecar, err == nil
}

// element is an ID as one path element, or missing for the empty ID. Distinct
// IDs become distinct elements, and ordinary IDs look like themselves: what
// could leave the directory, hide, or be refused by some system is escaped as
// %XX byte by byte, and what is too long is cut and ends in its hash.
func element(id, missing string) string {
	if id == "" {
		return missing
	}
	if plain(id) && len(id) <= maxElement && !reserved(id) {
		return id
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

// plain says whether an ID has none but characters that are the same everywhere,
// as most have: then nothing in it is to be escaped, unless it is reserved.
func plain(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
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

// cutHash is how long the hash at the end of a name that was cut is, in hexadecimal
// digits.
const cutHash = 32

// cut shortens an escaped name, between two characters, and adds half of the
// SHA-256 of the ID: enough to make a collision that nobody can find.
func cut(escaped, id string) string {
	sum := sha256.Sum256([]byte(id))
	keep := maxElement - len(cutMark) - cutHash
	for keep > 0 && !utf8.RuneStart(escaped[keep]) {
		keep--
	}
	if i := strings.LastIndexByte(escaped[:keep], '%'); i >= 0 && keep-i < 3 {
		keep = i
	}
	return escaped[:keep] + cutMark + hex.EncodeToString(sum[:cutHash/2])
}
