package adopt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// The local file store of PromptKit (github.com/AltairaLabs/PromptKit,
// runtime/storage/local, as of August 2026) is a directory with
//
//	.dedup_index.json              {"<sha256, 64 hexadecimal digits>": "<path>", …};
//	                               only where deduplication was on
//	sessions/<id>/<file>           the media, by session, conversation or run;
//	conversations/<id>/<file>      <file> is the digest in hexadecimal and an
//	runs/<id>/<file>               extension, or without deduplication
//	                               <message>_<part>_<nanoseconds> and an extension
//	<file>.meta                    one JSON object, see kitMeta
//	store-stream-*.tmp, *.tmp      what was being written
//
// In <id>, each of / \ : * ? " < > | has become an underscore, so the .meta file has
// the ID and the directory may not. A reference is the path of the file, as made of the
// base directory that the store was configured with: absolute or relative. Equal
// contents share one path, and how many references that has is nowhere on disk. The
// index is rewritten in place, so a crash may have cut it short; the names of the
// files then tell the digests all the same.
//
// Raw PCM is stored with a WAV header while the .meta file goes on to say audio/pcm or
// audio/L16; size_bytes is what the caller said, if anything.
const (
	kitIndex   = ".dedup_index.json"
	metaSuffix = ".meta"
	// maxMeta bounds a .meta file, which has a dozen short fields, in bytes.
	maxMeta = 1 << 20
)

// kitDirs are the directories of the three kinds of ID.
var kitDirs = []string{"sessions", "conversations", "runs"}

// Labels of what PromptKit knows of media and a store has no field for, or no use.
const (
	providerLabel = "provider_id"
	policyLabel   = "policy_name"
)

// kitPolicy is what PromptKit takes for a policy; it deletes nothing under another.
var kitPolicy = regexp.MustCompile(`^(delete-after-[0-9]{1,9}min|retain-[0-9]{1,9}(hours|days))$`)

// kitMeta is a .meta file.
type kitMeta struct {
	RunID          string    `json:"run_id"`
	ConversationID string    `json:"conversation_id"`
	SessionID      string    `json:"session_id"`
	MessageIdx     int       `json:"message_idx"`
	PartIdx        int       `json:"part_idx"`
	MIMEType       string    `json:"mime_type"`
	SizeBytes      int64     `json:"size_bytes"`
	ProviderID     string    `json:"provider_id"`
	Timestamp      time.Time `json:"timestamp"`
	PolicyName     string    `json:"policy_name"`
}

// looksLikePromptKit says whether media with a .meta file beside it lies where
// PromptKit puts it.
func (s *source) looksLikePromptKit() bool {
	for name := range s.files {
		media, isMeta := strings.CutSuffix(name, metaSuffix)
		if isMeta && s.files[media] != nil && kitPlace(media) != nil {
			if _, err := s.readMeta(name); err == nil {
				return true
			}
		}
	}
	return false
}

// kitPlace is the kind of directory, the ID's and the file's name of a path that
// PromptKit made, otherwise nil.
func kitPlace(name string) []string {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || !slices.Contains(kitDirs, parts[0]) {
		return nil
	}
	return parts
}

// surveyPromptKit makes a candidate of every file where PromptKit puts media, and of
// every entry of the index.
func (s *source) surveyPromptKit(ctx context.Context) error {
	listed, err := s.readKitIndex(ctx)
	if err != nil {
		return err
	}
	for name, f := range s.files {
		if media, isMeta := strings.CutSuffix(name, metaSuffix); isMeta && kitPlace(name) != nil {
			if s.files[media] == nil {
				s.orphanMeta(media, name, listed)
			}
			continue
		}
		switch {
		case f.spoken:
		case kitPlace(name) == nil:
			s.leave(name, OddPlace, "PromptKit keeps media in sessions/<id>/, conversations/<id>/ and runs/<id>/")
		default:
			s.candidates = append(s.candidates, s.kitCandidate(name, f, listed))
		}
	}
	for name, entry := range listed {
		if s.files[name] == nil && s.files[name+metaSuffix] == nil {
			s.candidates = append(s.candidates, &candidate{path: name, size: -1, origins: s.originsOf(name, entry.spelled)})
		}
	}
	return nil
}

// kitEntry is an entry of the index.
type kitEntry struct {
	digest  storage.Digest
	spelled string // the path as the index has it
}

// readKitIndex is the entries of the index by path in the source; nil where there
// is no index that can be used.
func (s *source) readKitIndex(ctx context.Context) (map[string]kitEntry, error) {
	if s.files[kitIndex] == nil {
		return nil, nil
	}
	listed := map[string]kitEntry{}
	err := s.eachField(ctx, kitIndex, func(hash string, value json.RawMessage) {
		var spelled string
		digest, err := storage.ParseDigest(hash)
		if err == nil {
			err = json.Unmarshal(value, &spelled)
		}
		if err != nil || digest.IsZero() {
			s.leave(kitIndex, OddEntry, "entry %.80q: want 64 hexadecimal digits and a path", hash)
			return
		}
		name, ok := s.kitInside(spelled)
		if !ok {
			s.leave(kitIndex, OddOutside, "entry %.80q names %q, which is not where PromptKit keeps media in this source", hash, spelled)
			return
		}
		if other, twice := listed[name]; twice {
			s.leave(kitIndex, OddEntry, "entries %s and %s name the same file %q", other.digest, digest, name)
		}
		listed[name] = kitEntry{digest, spelled}
	})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		s.leave(kitIndex, OddIndex, "%v: going by the names of the files", err)
		return nil, nil
	}
	s.leave(kitIndex, OddBookkept, "the index of the old store")
	return listed, nil
}

// kitInside is where a path of the index is in the source. One that is relative to a
// working directory nobody knows, or below a base that the store has been moved
// from, is told by its last three elements.
func (s *source) kitInside(spelled string) (string, bool) {
	if name, ok := s.inside(spelled); ok && kitPlace(name) != nil {
		return name, true
	}
	parts := strings.Split(strings.ReplaceAll(spelled, `\`, "/"), "/")
	if len(parts) < 3 {
		return "", false
	}
	name := strings.Join(parts[len(parts)-3:], "/")
	return name, kitPlace(name) != nil && filepath.IsLocal(filepath.FromSlash(name)) && path.Clean(name) == name
}

// orphanMeta is about a .meta file whose media is not there: gone, or taken by an
// earlier run that was ended before it removed this file as well.
func (s *source) orphanMeta(media, meta string, listed map[string]kitEntry) {
	c := &candidate{path: media, size: -1, origins: s.originsOf(media, listed[media].spelled)}
	if _, err := s.readMeta(meta); err == nil {
		c.belongs = []string{meta}
	}
	c.note(OddMissing, "%s is of a file that is not there", meta)
	s.candidates = append(s.candidates, c)
}

func (s *source) kitCandidate(name string, f *file, listed map[string]kitEntry) *candidate {
	entry, isListed := listed[name]
	c := &candidate{path: name, file: f, size: -1, origins: s.originsOf(name, entry.spelled), digest: entry.digest}
	place := kitPlace(name)
	stem, _, _ := strings.Cut(place[2], ".")
	named, err := storage.ParseDigest(stem)
	isNamed := err == nil && len(stem) == 64
	switch {
	case isListed && isNamed && named != entry.digest:
		c.note(OddEntry, "the index says %s", entry.digest)
	case isNamed:
		c.digest = named
		if listed != nil && !isListed {
			c.note(OddUnlisted, "no entry of %s names it", kitIndex)
		}
	}
	c.metadata.CreatedAt = usable(f.modified)
	meta := name + metaSuffix
	if s.files[meta] == nil {
		c.note(OddMetadata, "no %s beside it: the ID is that of the directory", metaSuffix)
		c.directoryID(place)
		return c
	}
	m, err := s.readMeta(meta)
	if err != nil {
		c.note(OddMetadata, "%s: %v: the ID is that of the directory", meta, err)
		c.directoryID(place)
		return c
	}
	c.belongs = []string{meta} // one that cannot be read stays
	c.apply(m, place)
	return c
}

// directoryID has the ID of a file be what its directory is named.
func (c *candidate) directoryID(place []string) {
	switch place[0] {
	case "sessions":
		c.metadata.SessionID = place[1]
	case "conversations":
		c.metadata.ConversationID = place[1]
	default:
		c.metadata.RunID = place[1]
	}
}

// apply takes over what a .meta file says.
func (c *candidate) apply(m kitMeta, place []string) {
	c.metadata.RunID, c.metadata.ConversationID, c.metadata.SessionID = m.RunID, m.ConversationID, m.SessionID
	c.metadata.MessageIndex, c.metadata.ContentIndex = m.MessageIdx, m.PartIdx
	if t := usable(m.Timestamp); !t.IsZero() {
		c.metadata.CreatedAt = t
	}
	c.metadata.Labels = map[string]string{}
	if m.ProviderID != "" {
		c.metadata.Labels[providerLabel] = m.ProviderID
	}
	if kitPolicy.MatchString(m.PolicyName) {
		c.metadata.Policy = m.PolicyName
	} else if m.PolicyName != "" {
		c.metadata.Labels[policyLabel] = m.PolicyName
		c.note(OddMetadata, "policy %.80q is none that PromptKit keeps to: it is kept as a label", m.PolicyName)
	}
	c.declare(m.MIMEType)
	wrapped := false
	if pcm, err := engine.IsPCM(c.info.MimeType); err == nil && pcm && strings.EqualFold(path.Ext(c.path), ".wav") {
		c.metadata.Labels[engine.ConvertedFrom] = c.info.MimeType
		c.info.MimeType = "audio/wav"
		wrapped = true
	}
	if id := map[string]string{"sessions": m.SessionID, "conversations": m.ConversationID, "runs": m.RunID}[place[0]]; kitElement(id) != place[1] {
		c.note(OddPlace, "the %s file says %q", metaSuffix, id)
	}
	if m.SizeBytes > 0 && m.SizeBytes != c.file.size && (!wrapped || m.SizeBytes+wavHeader != c.file.size) {
		c.note(OddSize, "%d bytes, the %s file says %d", c.file.size, metaSuffix, m.SizeBytes)
	}
}

// wavHeader is what PromptKit puts before raw PCM, in bytes.
const wavHeader = 44

// kitElement is the directory that PromptKit makes of an ID.
func kitElement(id string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, id)
}

func (s *source) readMeta(name string) (m kitMeta, err error) {
	data, err := s.read(name, maxMeta)
	if err != nil {
		return m, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("no metadata of PromptKit: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return m, errors.New("no metadata of PromptKit: more than one JSON object")
	}
	return m, nil
}
