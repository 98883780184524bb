package adopt

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// pattern tells IDs from a path, element by element:
//
//	{session} {conversation} {run} {user}   an ID: one or more characters
//	*                                       any characters of one element
//	**                                      as an element: any number of elements
//	everything else                         stands for itself
//
// It has to match the whole path below the source, as {session}/{conversation}/*
// does s1/c1/photo.png. The zero pattern matches every path and tells nothing.
type pattern struct {
	text string
	re   *regexp.Regexp
}

// patternIDs are the names of IDs in a pattern.
var patternIDs = []string{"session", "conversation", "run", "user"}

// parsePattern answers ErrInvalidConfig for what is no pattern.
func parsePattern(text string) (pattern, error) {
	if text == "" {
		return pattern{}, nil
	}
	invalid := func(why string, args ...any) (pattern, error) {
		return pattern{}, fmt.Errorf("%w: pattern %q: %s", storage.ErrInvalidConfig, text, fmt.Sprintf(why, args...))
	}
	if path.Clean(text) != text || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "..") {
		return invalid("want a path relative to the source, such as {session}/{conversation}/*")
	}
	var re strings.Builder
	var seen []string
	re.WriteString("(?s)^")
	for rest := text; rest != ""; {
		switch {
		case (rest == text || text[len(text)-len(rest)-1] == '/') && strings.HasPrefix(rest, "**/"):
			re.WriteString("(?:[^/]+/)*")
			rest = rest[3:]
		case strings.HasPrefix(rest, "**"):
			re.WriteString(".*")
			rest = rest[2:]
		case rest[0] == '*':
			re.WriteString("[^/]*")
			rest = rest[1:]
		case rest[0] == '{':
			name, after, closed := strings.Cut(rest[1:], "}")
			if !closed || !slices.Contains(patternIDs, name) {
				return invalid("%q: want one of {%s}", rest, strings.Join(patternIDs, "}, {"))
			}
			if slices.Contains(seen, name) {
				return invalid("{%s} is there twice", name)
			}
			seen = append(seen, name)
			fmt.Fprintf(&re, "(?P<%s>[^/]+)", name)
			rest = after
		default:
			end := strings.IndexAny(rest, "*{")
			if end < 0 {
				end = len(rest)
			}
			re.WriteString(regexp.QuoteMeta(rest[:end]))
			rest = rest[end:]
		}
	}
	re.WriteString("$")
	compiled, err := regexp.Compile(re.String())
	if err != nil {
		return invalid("%v", err)
	}
	return pattern{text: text, re: compiled}, nil
}

// match puts the IDs of a path into m, and says whether the path matches.
func (p pattern) match(path string, m *storage.MediaMetadata) bool {
	if p.re == nil {
		return true
	}
	found := p.re.FindStringSubmatch(path)
	if found == nil {
		return false
	}
	for i, name := range p.re.SubexpNames() {
		switch name {
		case "session":
			m.SessionID = found[i]
		case "conversation":
			m.ConversationID = found[i]
		case "run":
			m.RunID = found[i]
		case "user":
			m.UserID = found[i]
		}
	}
	return true
}
