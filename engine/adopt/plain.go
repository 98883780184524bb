package adopt

import (
	"path"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// fileName is the label that keeps the name of a file of a plain folder.
const fileName = "file_name"

// surveyPlain makes a candidate of every file that matches the pattern.
func (s *source) surveyPlain(p pattern) {
	for name, f := range s.files {
		c := &candidate{path: name, file: f, size: -1, origins: s.originsOf(name, "")}
		if !p.match(name, &c.metadata) {
			s.leave(name, OddPattern, "the pattern is %s", p.text)
			continue
		}
		c.metadata.CreatedAt = usable(f.modified)
		c.metadata.Labels = map[string]string{}
		if base := path.Base(name); len(base) <= storage.MaxLabelValueLength {
			c.metadata.Labels[fileName] = strings.ToValidUTF8(base, "_")
		}
		s.candidates = append(s.candidates, c)
	}
}

// usable is a time that a store can keep, or none.
func usable(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return time.Time{}
	}
	return t
}
