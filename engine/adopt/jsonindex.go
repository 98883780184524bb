package adopt

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// jsonIndex is the index of a store of the format JSON: one object with a field
// for each blob, whose name is "sha256:" and the digest in hexadecimal,
//
//	"sha256:9f86…": {
//	  "hash":          "9f86…",                  the digest once more
//	  "path":          "s1/c1/photo.png",        relative to the store, or absolute
//	  "size":          1234,                     bytes
//	  "mime_type":     "image/png",
//	  "ref_count":     3,                        references
//	  "created_at":    "2026-03-01T12:30:00Z",   RFC 3339
//	  "last_accessed": "2026-03-02T08:00:00Z"    not kept
//	}
//
// Behind the digest may be "#" and a word, where a store keeps the same bytes more
// than once. References have no names of their own there: the path stands for all.
const jsonIndex = ".dedup-index.json"

// jsonEntry is a field of the index.
type jsonEntry struct {
	Hash         string    `json:"hash"`
	Path         string    `json:"path"`
	Size         int64     `json:"size"`
	MimeType     string    `json:"mime_type"`
	RefCount     int64     `json:"ref_count"`
	CreatedAt    time.Time `json:"created_at"`
	LastAccessed time.Time `json:"last_accessed"`
}

// surveyJSON makes a candidate of every entry of the index that names a file, and
// leaves the files that none names.
func (s *source) surveyJSON(ctx context.Context, p pattern) error {
	if s.files[jsonIndex] == nil {
		return fmt.Errorf("%w: no %s there, which is the index of a store of the format %s", storage.ErrInvalidConfig, jsonIndex, JSON)
	}
	listed := map[string]string{} // path to the entry that names it
	err := s.eachField(ctx, jsonIndex, func(name string, value json.RawMessage) {
		s.jsonEntry(name, value, p, listed)
	})
	if err != nil {
		return fmt.Errorf("index %s: %w: mend it, or adopt the files alone in the format %s", jsonIndex, err, Plain)
	}
	s.leave(jsonIndex, OddBookkept, "the index of the old store")
	for name, f := range s.files {
		switch {
		case f.spoken:
		case strings.HasSuffix(name, metaSuffix) && s.files[strings.TrimSuffix(name, metaSuffix)] != nil:
			s.leave(name, OddBookkept, "metadata that the index has no place for")
		default:
			s.leave(name, OddUnlisted, "no entry of %s names it", jsonIndex)
		}
	}
	return nil
}

// jsonEntry makes a candidate of one entry, or says why not.
func (s *source) jsonEntry(name string, value json.RawMessage, p pattern, listed map[string]string) {
	var e jsonEntry
	if err := json.Unmarshal(value, &e); err != nil {
		s.leave(name, OddEntry, "%v", err)
		return
	}
	rel, ok := s.inside(e.Path)
	if !ok {
		s.leave(name, OddOutside, "entry %.80q names %q, which is not below the source", name, e.Path)
		return
	}
	if other, twice := listed[rel]; twice {
		s.leave(rel, OddEntry, "entries %.80q and %.80q name the same file", other, name)
		s.candidates = deletePath(s.candidates, rel)
		return
	}
	listed[rel] = name
	c := &candidate{
		path: rel, file: s.files[rel], origins: s.originsOf(rel, e.Path), count: e.RefCount, size: e.Size,
		metadata: storage.MediaMetadata{CreatedAt: usable(e.CreatedAt)},
	}
	digits, _, _ := strings.Cut(name, "#")
	digest, err := storage.ParseDigest(digits)
	hash, hashErr := storage.ParseDigest(e.Hash)
	switch {
	case err != nil || digest.IsZero():
		s.leave(rel, OddEntry, "entry %.80q: want sha256: and 64 hexadecimal digits", name)
	case e.Hash != "" && (hashErr != nil || hash != digest):
		s.leave(rel, OddEntry, "entry %.80q has the hash %.80q", name, e.Hash)
	case e.Size < 0:
		s.leave(rel, OddEntry, "entry %.80q has the size %d", name, e.Size)
	case e.RefCount <= 0:
		s.leave(rel, OddUnused, "entry %.80q has the ref_count %d", name, e.RefCount)
	case !p.match(rel, &c.metadata):
		s.leave(rel, OddPattern, "the pattern is %s", p.text)
	default:
		c.digest = digest
		c.declare(e.MimeType)
		if c.file != nil {
			c.file.spoken = true
		}
		s.candidates = append(s.candidates, c)
	}
}

func deletePath(list []*candidate, path string) []*candidate {
	var rest []*candidate
	for _, c := range list {
		if c.path != path {
			rest = append(rest, c)
		}
	}
	return rest
}

// eachField reads a file that is one JSON object, field by field. What has been read
// before an error was told.
func (s *source) eachField(ctx context.Context, name string, tell func(name string, value json.RawMessage)) (err error) {
	f, _, err := s.open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewReaderSize(f, 1<<16)
	if mark, _ := in.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		_, _ = in.Discard(len(byteOrderMark)) // was peeked
	}
	d := json.NewDecoder(in)
	damaged := func(err error) error {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%w: at byte %d: %w", storage.ErrCorrupted, d.InputOffset(), err)
	}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return damaged(errors.Join(errors.New("want a JSON object"), err))
	}
	for d.More() {
		if err := ctx.Err(); err != nil {
			return err
		}
		t, err := d.Token()
		if err != nil {
			return damaged(err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return damaged(err)
		}
		tell(t.(string), value) // in an object, d answers nothing else
	}
	if _, err := d.Token(); err != nil {
		return damaged(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return damaged(errors.New("something follows the object"))
	}
	return nil
}

// byteOrderMark is what some editors put before UTF-8.
var byteOrderMark = []byte{0xef, 0xbb, 0xbf}
