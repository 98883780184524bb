package blobs

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// windowsDevices are the names that Windows takes for devices, whatever their
// case and extension (learn.microsoft.com, "Naming Files, Paths, and
// Namespaces").
var windowsDevices = func() map[string]bool {
	devices := map[string]bool{"CON": true, "PRN": true, "AUX": true, "NUL": true, "CONIN$": true, "CONOUT$": true}
	for _, digit := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³"} {
		devices["COM"+digit], devices["LPT"+digit] = true, true
	}
	return devices
}()

// requireSafe requires that e can be one element of a path anywhere.
func requireSafe(t require.TestingT, e string) {
	require.NotContains(t, []string{"", ".", ".."}, e)
	require.LessOrEqual(t, len(e), 120)
	require.True(t, utf8.ValidString(e), "%q", e)
	require.False(t, strings.ContainsAny(e, `/\:*?"<>|`), "%q", e)
	require.False(t, strings.ContainsFunc(e, unicode.IsControl), "%q", e)
	require.False(t, strings.ContainsFunc(e, func(r rune) bool { return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }), "%q", e)
	require.NotContains(t, ". ", e[:1])
	require.NotContains(t, ". ", e[len(e)-1:])
	stem, _, _ := strings.Cut(strings.ToUpper(e), ".")
	require.False(t, windowsDevices[strings.TrimRight(stem, " ")], "%q", e)
	require.True(t, fs.ValidPath(e))
	_, _, blob := parseFileName(e)
	require.False(t, blob, "%q could be a blob's name", e)
	require.NotEqual(t, "lost+found", e)
}

func TestOrdinaryIDsLookLikeThemselves(t *testing.T) {
	for _, id := range []string{
		"session-xyz", "conv-123", "a", "A", "0", "-", "_", "--", "a b", "a.b", "a..b", "user@example.com", "x=1&y=2", "[x](y)",
		"会話", "Ünïcödé", "réunion d'été", "😀", "e\u0301", "console", "CONS", "com", "com10", "nullable", "auxiliary.txt", "COMx", "lpt",
		"no-sessions", "0190a5f4-7c3e-7b1a-9c1d-2f4b6a8c0e11", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "thread_abc123", "$HOME", "~", "`id`", "a;b",
		strings.Repeat("x", 120),
	} {
		require.Equal(t, id, element(id, noSession))
		requireSafe(t, id)
	}
}

func TestEscapes(t *testing.T) {
	for id, want := range map[string]string{
		".":            "%2e",
		"..":           "%2e%2e",
		"...":          "%2e.%2e",
		"../..":        "%2e.%2f.%2e",
		"/etc/passwd":  "%2fetc%2fpasswd",
		`C:\x`:         "C%3a%5cx",
		".hidden":      "%2ehidden",
		"end.":         "end%2e",
		" a ":          "%20a%20",
		"a\x00b":       "a%00b",
		"a\nb":         "a%0ab",
		"50%":          "50%25",
		"%2e":          "%252e",
		"\x7f":         "%7f",
		"\xff":         "%ff",
		"\ufffd":       "%ef%bf%bd",
		"a\u202eb":     "a%e2%80%aeb",
		"a\u2028b":     "a%e2%80%a8b",
		"CON":          "%43ON",
		"con":          "%63on",
		"nul.txt":      "%6eul.txt",
		"Com1":         "%43om1",
		"LPT9.a.b":     "%4cPT9.a.b",
		"com¹":         "%63om¹",
		"CON .x":       "%43ON .x",
		"CON.":         "%43ON%2e",
		"no-session":   "%6eo-session",
		"no-run":       "%6eo-run",
		"lost+found":   "%6cost+found",
		".mediabolt":   "%2emediabolt",
		".meta":        "%2emeta",
		"conout$":      "%63onout$",
		"\u00a0":       "%c2%a0",
		"a\u3000":      "a%e3%80%80",
		"no-session\n": "no-session%0a",
	} {
		got := element(id, noRun)
		require.Equal(t, want, got, "%q", id)
		requireSafe(t, got)
	}
	blob := storage.ID{}.String() + ".png"
	require.Equal(t, "%30"+blob[1:], element(blob, noRun), "a blob's name")
	require.Equal(t, "%30"+blob[1:]+".meta", element(blob+".meta", noRun), "a sidecar's name")
}

func TestMissingIDs(t *testing.T) {
	elements := map[string]bool{}
	for _, missing := range []string{noSession, noConversation, noRun} {
		require.Equal(t, missing, element("", missing))
		requireSafe(t, missing)
		require.NotEqual(t, missing, element(missing, missing))
		elements[missing] = true
	}
	require.Len(t, elements, 3)
}

func TestLongIDs(t *testing.T) {
	seen := map[string]string{}
	for _, unit := range []string{"x", "é", "会", "😀", "/", "\x00", "%", ".", "a/", "x.", " ", "\xff"} {
		for n := 1; n <= 1024/len(unit); n++ {
			id := strings.Repeat(unit, n)
			e := element(id, noSession)
			requireSafe(t, e)
			other, taken := seen[e]
			require.False(t, taken, "%d times %q and %q are both %q", n, unit, other, e)
			seen[e] = id
		}
	}
	long := strings.Repeat("x", 1023)
	require.NotEqual(t, element(long+"a", noSession), element(long+"b", noSession))
	require.Equal(t, strings.Repeat("x", 86), element(long, noSession)[:86], "its beginning can be recognised")
	// What a cut name looks like is an ID as well, of another element.
	cut := element(long, noSession)
	require.NotEqual(t, cut, element(cut, noSession))
}

// A search for two IDs of one element, among IDs made of what the escape has to
// tell apart.
func TestNoTwoIDsShareAnElement(t *testing.T) {
	seen := map[string]string{}
	check := func(id string) {
		if id == "" {
			return
		}
		e := element(id, noSession)
		if other, taken := seen[e]; taken && other != id {
			require.Fail(t, "collision", "%q and %q are both %q", id, other, e)
		}
		seen[e] = id
	}
	for i := range 256 {
		check(string([]byte{byte(i)}))
		for j := range 256 {
			check(string([]byte{byte(i), byte(j)}))
		}
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) {
			e := element(string(r), noSession)
			if other, taken := seen[e]; taken && other != string(r) {
				require.Fail(t, "collision", "%q and %q are both %q", r, other, e)
			}
		}
	}
	parts := []string{"", ".", "..", "%", "%2e", "%25", "2e", "/", "\\", " ", "a", "A", "con", "CON", "nul", "com1", "no-session", "\x00", "\xff", "\xc3", "é", "%h", "h", "\ufffd"}
	for _, a := range parts {
		for _, b := range parts {
			for _, c := range parts {
				check(a + b + c)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50000 {
		var id strings.Builder
		for range random.IntN(60) {
			id.WriteString(parts[random.IntN(len(parts))])
		}
		check(id.String())
	}
}

func FuzzElement(f *testing.F) {
	f.Add("a", "b")
	f.Add("..", "%2e%2e")
	f.Add("CON", "%43ON")
	f.Add(strings.Repeat("/", 200), strings.Repeat("/", 201))
	f.Add(strings.Repeat("é", 100), strings.Repeat("e\u0301", 100))
	f.Add("no-session", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		ea, eb := element(a, noSession), element(b, noSession)
		requireSafe(t, ea)
		requireSafe(t, eb)
		require.Equal(t, a == b, ea == eb, "%q and %q", ea, eb)
		for _, kind := range []storage.IDKind{storage.SessionIDs, storage.ConversationIDs, storage.RunIDs} {
			id, cut, ok := ElementID(kind, Element(kind, a))
			require.NotEqual(t, cut, ok)
			if ok {
				require.Equal(t, a, id)
			}
			if id, _, ok := ElementID(kind, b); ok {
				require.Equal(t, b, Element(kind, id), "what is taken for the name of an ID is its name")
			}
		}
	})
}

func TestElementIDs(t *testing.T) {
	for name, want := range map[string]string{
		"no-session": "", "%6eo-session": "no-session", "s": "s", "a b": "a b", "%2e%2e": "..", "a%2fb": "a/b", "会話": "会話",
	} {
		id, cut, ok := ElementID(storage.SessionIDs, name)
		require.True(t, ok, name)
		require.False(t, cut, name)
		require.Equal(t, want, id, name)
	}
	_, cut, ok := ElementID(storage.SessionIDs, element(strings.Repeat("x", 200), noSession))
	require.True(t, cut && !ok)
	for _, name := range []string{"", ".", "..", "%", "%2", "%zz", "%61", "a/b", "%2E", " a", "CON", "a%h00", ".hidden"} {
		_, cut, ok := ElementID(storage.SessionIDs, name)
		require.False(t, cut || ok, name)
	}
	id, _, ok := ElementID(storage.RunIDs, "no-run")
	require.True(t, ok && id == "")
	_, _, ok = ElementID(storage.RunIDs, "no-session")
	require.False(t, ok, "an ID of that name is escaped")
}

func FuzzDir(f *testing.F) {
	f.Add("s", "c", "r", "s2", "c2", "r2")
	f.Add("a/b", "c", "", "a", "b/c", "")
	f.Add("..", "..", "..", "", "", "")
	f.Add("", "no-session", "no-run", "no-session", "", "")
	f.Fuzz(func(t *testing.T, s1, c1, r1, s2, c2, r2 string) {
		one := storage.MediaMetadata{SessionID: s1, ConversationID: c1, RunID: r1}
		two := storage.MediaMetadata{SessionID: s2, ConversationID: c2, RunID: r2}
		for _, mode := range storage.OrganizationModes() {
			a, b := Dir(mode, &one), Dir(mode, &two)
			require.True(t, fs.ValidPath(a))
			require.Equal(t, path.Clean(a), a)
			var same bool
			depth := 0
			switch mode {
			case storage.OrganizationFlat:
				require.Equal(t, ".", a)
				continue
			case storage.OrganizationByConversation:
				same, depth = c1 == c2, 1
			case storage.OrganizationBySession:
				same, depth = c1 == c2 && s1 == s2, 2
			case storage.OrganizationByRun:
				same, depth = c1 == c2 && s1 == s2 && r1 == r2, 3
			}
			elements := strings.Split(a, "/")
			require.Len(t, elements, depth)
			for _, e := range elements {
				requireSafe(t, e)
			}
			require.Equal(t, same, a == b, "%s and %s", a, b)
		}
	})
}

func TestDir(t *testing.T) {
	m := storage.MediaMetadata{SessionID: "session-xyz", ConversationID: "conv-123", RunID: "run-7", UserID: "u"}
	for mode, want := range map[storage.OrganizationMode][2]string{
		storage.OrganizationFlat:           {".", "."},
		storage.OrganizationByConversation: {"conv-123", "no-conversation"},
		storage.OrganizationBySession:      {"session-xyz/conv-123", "no-session/no-conversation"},
		storage.OrganizationByRun:          {"run-7/session-xyz/conv-123", "no-run/no-session/no-conversation"},
	} {
		require.Equal(t, want[0], Dir(mode, &m))
		require.Equal(t, want[1], Dir(mode, &storage.MediaMetadata{}))
	}
}

func TestFileNames(t *testing.T) {
	id := storage.ID{Hash: [3]byte{0xa1, 0xb2, 0xc3}, UUID: storage.UUID{15: 1}}
	for mimeType, ext := range map[string]string{
		"image/png": ".png", "IMAGE/PNG": ".png", " image/jpeg ; q=1": ".jpg", "text/plain; charset=utf-8": ".txt",
		"": ".bin", "nonsense": ".bin", "application/x-unheard-of": ".bin", "image/../../x": ".bin", "video/mp4": ".mp4", "audio/mpeg": ".mp3",
	} {
		name := FileName(id, mimeType)
		require.Equal(t, "a1b2c3-00000000000000000000000004"+ext, name)
	}
	for mimeType := range extensions {
		name := FileName(id, mimeType)
		for _, suffix := range []string{"", metaSuffix} {
			parsed, sidecar, ok := parseFileName(name + suffix)
			require.True(t, ok, name)
			require.Equal(t, id, parsed)
			require.Equal(t, suffix != "", sidecar)
		}
	}
	for _, name := range []string{
		"", ".", "..", ".meta", "a1b2c3.png", "cat.png", "a1b2c3-.png", "a1b2c3-0000000000000000000000000.png", "A1B2C3-00000000000000000000000004.png",
		"x-a1b2c3-00000000000000000000000004.png", "a1b2c3-00000000000000000000000004x.png", " a1b2c3-00000000000000000000000004.png",
	} {
		_, _, ok := parseFileName(name)
		require.False(t, ok, "%q", name)
	}
}

// Extensions are safe themselves: a dot, lower-case letters and digits.
func TestExtensions(t *testing.T) {
	for mimeType, ext := range extensions {
		require.Equal(t, strings.ToLower(mimeType), mimeType)
		require.Regexp(t, `^\.[a-z0-9]{1,8}$`, ext, mimeType)
		require.NotEqual(t, metaSuffix, ext)
		require.NotEqual(t, partSuffix, ext)
		require.Equal(t, ext, extension(fmt.Sprintf("%s; charset=x", strings.ToUpper(mimeType))))
	}
}
