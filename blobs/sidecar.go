package blobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// A sidecar is "<blob>.meta", JSON Lines. The first line tells of the blob and
// its first reference, each further one of another reference, or of the
// deletion of one of several (a tombstone):
//
//	{"v":1,"blob":{…},"ref":{…},"crc":"0a1b2c3d"}
//	{"v":1,"ref":{…},"crc":"…"}
//	{"v":1,"deleted":"<reference ID>","crc":"…"}
//
// crc is the CRC-32C of the line's bytes before `,"crc"`, in hexadecimal. The
// live references are those added and not deleted, in whatever order; of several
// lines about one the highest "revision" counts. A line
// survives one before it that was cut short: it is found by its beginning.

// sidecarVersion is the "v" of every line.
const sidecarVersion = 1

var (
	lineStart  = []byte(`{"v":`)
	crcField   = []byte(`,"crc":"`)
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// crcTail is what follows crcField: eight digits, a quote and a brace.
const crcTail = len(`00000000"}`)

type sidecarLine struct {
	V       int          `json:"v"`
	Blob    *sidecarBlob `json:"blob,omitempty"`
	Ref     *sidecarRef  `json:"ref,omitempty"`
	Deleted string       `json:"deleted,omitempty"`
}

type sidecarBlob struct {
	Key          string    `json:"key"`
	Size         int64     `json:"size"`
	CRC          string    `json:"crc32c"`
	SHA256       string    `json:"sha256,omitempty"`
	MimeType     string    `json:"mime_type,omitempty"`
	Organization string    `json:"organization"`
	CreatedAt    time.Time `json:"created_at"`
}

type sidecarRef struct {
	ID       string `json:"id"`
	Type     string `json:"type,omitempty"`
	MimeType string `json:"mime_type,omitempty"`
	storage.MediaMetadata
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Count     int64     `json:"count,omitempty"`
	Revision  uint32    `json:"revision,omitempty"`
}

// encodeLine adds a line with its newline, to be appended to the sidecar of blob.
func encodeLine(to *bytes.Buffer, blob *storage.BlobRow, l *storage.SidecarLine) error {
	line := sidecarLine{V: sidecarVersion}
	if l.First {
		line.Blob = &sidecarBlob{
			Key: blob.Key.String(), Size: blob.Size, CRC: fmt.Sprintf("%08x", blob.CRC), SHA256: blob.Digest.String(),
			MimeType: blob.MimeType, Organization: string(blob.Organization), CreatedAt: blob.CreatedAt,
		}
	}
	switch {
	case l.Ref != nil:
		line.Ref = &sidecarRef{
			ID: blob.NameHash() + "-" + l.Ref.UUID.String(), Type: l.Ref.Type, MimeType: l.Ref.MimeType, MediaMetadata: l.Ref.Metadata,
			ExpiresAt: l.Ref.ExpiresAt, Count: l.Ref.Count, Revision: l.Ref.Revision,
		}
	default:
		line.Deleted = blob.NameHash() + "-" + l.Deleted.String()
	}
	begin := to.Len()
	if err := json.NewEncoder(to).Encode(&line); err != nil {
		return err
	}
	to.Truncate(to.Len() - len("}\n")) // the sum goes before it
	sum := crc32.Checksum(to.Bytes()[begin:], castagnoli)
	_, err := fmt.Fprintf(to, "%s%08x\"}\n", crcField, sum)
	return err
}

// decodeLine reads a line without its newline, of a sidecar whose path is the
// blob's plus ".meta". A line with First set comes with the blob that it tells
// of, its path and refcount left empty.
func decodeLine(line []byte) (storage.SidecarLine, storage.BlobRow, error) {
	var l storage.SidecarLine
	var blob storage.BlobRow
	cut := len(line) - crcTail - len(crcField)
	if cut < 1 || !bytes.HasPrefix(line[cut:], crcField) {
		return l, blob, errors.New("no checksum at its end")
	}
	body := line[:cut]
	want, err := strconv.ParseUint(string(line[cut+len(crcField):len(line)-2]), 16, 32)
	if sum := crc32.Checksum(body, castagnoli); err != nil || uint64(sum) != want {
		return l, blob, fmt.Errorf("checksum %08x, the line says %.8s", sum, line[cut+len(crcField):])
	}
	var raw sidecarLine
	if err := json.Unmarshal(append(body[:cut:cut], '}'), &raw); err != nil {
		return l, blob, err
	}
	if raw.V != sidecarVersion {
		return l, blob, fmt.Errorf("%w: sidecar line version %d, this program knows %d", storage.ErrVersion, raw.V, sidecarVersion)
	}
	if raw.Blob != nil {
		l.First = true
		if blob, err = raw.Blob.row(); err != nil {
			return l, blob, err
		}
	}
	switch {
	case raw.Ref != nil && raw.Deleted == "":
		id, err := storage.ParseID(raw.Ref.ID)
		if err != nil {
			return l, blob, err
		}
		l.Ref = &storage.RefRow{
			UUID: id.UUID, Blob: blob.Key, Type: raw.Ref.Type, MimeType: raw.Ref.MimeType, Metadata: raw.Ref.MediaMetadata,
			ExpiresAt: raw.Ref.ExpiresAt, Count: raw.Ref.Count, Revision: raw.Ref.Revision,
		}
	case raw.Ref == nil && raw.Deleted != "":
		id, err := storage.ParseID(raw.Deleted)
		if err != nil {
			return l, blob, err
		}
		l.Deleted = id.UUID
	default:
		return l, blob, errors.New("neither an addition nor a deletion")
	}
	return l, blob, nil
}

func (b *sidecarBlob) row() (storage.BlobRow, error) {
	row := storage.BlobRow{
		Size: b.Size, MimeType: b.MimeType, CreatedAt: b.CreatedAt,
		Organization: storage.OrganizationMode(b.Organization),
	}
	crc, err := strconv.ParseUint(b.CRC, 16, 32)
	if err != nil {
		return row, fmt.Errorf("crc32c %q: %w", b.CRC, err)
	}
	row.CRC = uint32(crc)
	if row.Key, err = storage.ParseBlobKey(b.Key); err != nil {
		return row, err
	}
	if b.SHA256 != "" {
		row.Digest, err = storage.ParseDigest(b.SHA256)
	}
	return row, err
}

// decodeSidecar reads a whole sidecar. What cannot be read is skipped and
// counted, together with the reason for the last.
func decodeSidecar(data []byte) (s storage.Sidecar) {
	s.Torn = len(data) > 0 && data[len(data)-1] != '\n'
	next := int64(0)
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		at := next
		next += int64(len(line)) + 1
		if len(line) == 0 {
			continue
		}
		l, blob, err := decodeLine(line)
		if err != nil {
			s.Damaged++
			s.Cause = err
			l, blob, err = decodeBehindTorn(line)
		}
		if err != nil {
			continue
		}
		if l.First && s.Blob.Key == "" {
			s.Blob = blob
		}
		l.At = at
		s.Lines = append(s.Lines, l)
	}
	return s
}

// decodeBehindTorn reads the line at the end of one that begins with another
// that was cut short. What looks like its beginning may also be a label named
// "v", of which a line has one at most; so two places from the end are tried.
func decodeBehindTorn(line []byte) (l storage.SidecarLine, blob storage.BlobRow, err error) {
	err = errors.New("no line behind one that was cut short")
	end := len(line)
	for range 2 {
		start := bytes.LastIndex(line[1:max(1, end)], lineStart) + 1
		if start == 0 {
			return l, blob, err
		}
		if l, blob, err = decodeLine(line[start:]); err == nil {
			return l, blob, nil
		}
		end = start
	}
	return l, blob, err
}
