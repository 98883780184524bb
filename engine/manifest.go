package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// A batch of the quarantine is what one repair, or one restoring, has moved away.
// Its name begins with the time, so that batches are in order. Its manifest is
// JSON Lines:
//
//	{"v":1,"at":…,"action":"move","path":…,"kind":…,"detail":…,"size":…}    before the file is moved
//	{"v":1,"at":…,"action":"write","path":…,"size":…,"crc32c":…}           after a sidecar was written
//	{"v":1,"at":…,"action":"lose","path":…,"reference":…,"metadata":{…}}    before the reference is ended
//
// blob is the key of the blob that it is about, where that is known. Which files
// are in the batch is told by its files.
type manifestLine struct {
	V         int                 `json:"v"`
	At        time.Time           `json:"at"`
	Action    manifestAction      `json:"action"`
	Path      string              `json:"path"`
	Blob      string              `json:"blob,omitempty"`
	Kind      storage.FindingKind `json:"kind,omitempty"`
	Detail    string              `json:"detail,omitempty"`
	Size      int64               `json:"size,omitempty"`
	CRC       string              `json:"crc32c,omitempty"`
	Reference string              `json:"reference,omitempty"`
	Type      string              `json:"type,omitempty"`
	MimeType  string              `json:"mime_type,omitempty"`
	Metadata  any                 `json:"metadata,omitempty"`
	ExpiresAt time.Time           `json:"expires_at,omitzero"`
	Count     int64               `json:"count,omitempty"`
}

type manifestAction string

const (
	manifestMove  manifestAction = "move"
	manifestWrite manifestAction = "write"
	manifestLose  manifestAction = "lose"
)

// manifestVersion is the "v" of every line.
const manifestVersion = 1

// batchTime is how a batch's name begins: in UTC.
const batchTime = "20060102T150405Z"

// batch is one that is being written.
type batch struct {
	s    *store
	name string
}

func (s *store) newBatch() (*batch, error) {
	id, err := s.mint.next()
	if err != nil {
		return nil, err
	}
	return &batch{s, time.Now().UTC().Format(batchTime) + "-" + id.String()}, nil
}

// batchMade is when a batch was begun; ok is false where its name does not tell.
func batchMade(name string) (at time.Time, ok bool) {
	stamp, _, _ := strings.Cut(name, "-")
	at, err := time.Parse(batchTime, stamp)
	return at, err == nil
}

// note adds lines to the manifest, durably.
func (b *batch) note(ctx context.Context, lines ...manifestLine) error {
	var data []byte
	for i := range lines {
		lines[i].V, lines[i].At = manifestVersion, now()
		line, err := json.Marshal(&lines[i])
		if err != nil {
			return fmt.Errorf("manifest of batch %s: %w", b.name, err)
		}
		data = append(append(data, line...), '\n')
	}
	return b.s.blobs.NoteAside(ctx, b.name, data)
}

// move notes why and moves the file of a line away. moved is false when there is
// none.
func (b *batch) move(ctx context.Context, line manifestLine) (moved bool, err error) {
	line.Action = manifestMove
	line.Size, err = b.s.blobs.Size(ctx, line.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return false, nil
	case err != nil && !errors.Is(err, storage.ErrCorrupted): // what is no regular file is moved too
		return false, err
	}
	if err := b.note(ctx, line); err != nil {
		return false, err
	}
	if err := b.s.faults.reach(ctx, faultNoted); err != nil {
		return false, err
	}
	if err := b.s.blobs.SetAside(ctx, b.name, line.Path); err != nil {
		return false, err
	}
	return true, b.s.faults.reach(ctx, faultAside)
}

// wrote notes what a repair has put at a path.
func (b *batch) wrote(ctx context.Context, path string, key storage.BlobKey) error {
	line := manifestLine{Action: manifestWrite, Path: path, Blob: key.String()}
	var err error
	if line.Size, line.CRC, err = b.s.sumOf(ctx, path, key); err != nil {
		return err
	}
	return b.note(ctx, line)
}

// sumOf is the size in bytes and the CRC-32C of the file at a path.
func (s *store) sumOf(ctx context.Context, path string, key storage.BlobKey) (size int64, crc string, err error) {
	file, size, err := s.blobs.Open(ctx, key, path)
	if err != nil {
		return 0, "", err
	}
	sum := crc32.New(castagnoli)
	_, err = io.Copy(sum, file)
	return size, fmt.Sprintf("%08x", sum.Sum32()), errors.Join(err, file.Close())
}

// readManifest reads the manifest of a batch. Lines that cannot be read, for a
// crash cut them short, are left out: what they told of has not been done.
func (s *store) readManifest(ctx context.Context, name string) ([]manifestLine, error) {
	data, err := s.blobs.Manifest(ctx, name)
	if err != nil {
		return nil, err
	}
	var lines []manifestLine
	for text := range bytes.Lines(data) {
		var line manifestLine
		if json.Unmarshal(text, &line) != nil {
			continue
		}
		if line.V != manifestVersion {
			return nil, fmt.Errorf("%w: manifest of batch %s: version %d, this program knows %d", storage.ErrVersion, name, line.V, manifestVersion)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// lockOf is the key whose lock is held while the file of a line is moved: that of
// its blob or, where no row has told it, that of a blob of its own.
func (l *manifestLine) lockOf() (storage.BlobKey, error) {
	if key, err := storage.ParseBlobKey(l.Blob); err == nil {
		return key, nil
	}
	id, err := fileID(l.Path)
	return storage.UUIDKey(id.UUID), err
}

// fileID is the ID in the name of a blob or sidecar.
func fileID(name string) (storage.ID, error) {
	stem, _, _ := strings.Cut(path.Base(name), ".")
	return storage.ParseID(stem)
}

// settleRepairs makes durable what repairs have done, and drops the debt of it.
func (s *store) settleRepairs(ctx context.Context) error {
	since := s.ledger.failed.Load()
	return errors.Join(s.checkpoint(ctx, false), s.settle(ctx, since))
}

// tidyQuarantine ends the moves that a crash has cut short: a file that has its
// name in the tree leaves its batch, which loses nothing.
func (s *store) tidyQuarantine(ctx context.Context) error {
	names, err := s.blobs.Batches(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		lines, err := s.readManifest(ctx, name)
		if err != nil {
			return err
		}
		for i := range lines {
			if lines[i].Action != manifestMove {
				continue
			}
			if err := s.blobs.ForgetAside(ctx, name, lines[i].Path); err != nil {
				return err
			}
		}
	}
	return nil
}
