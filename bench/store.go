package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// info keeps sniffing out of what is measured.
var info = storage.MediaInfo{Type: "document", MimeType: "application/octet-stream"}

// OpenStore opens a durable store with deduplication in dir.
func OpenStore(dir string) (*engine.FileStore, error) {
	return engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
}

func metadata(n uint64) storage.MediaMetadata {
	return storage.MediaMetadata{
		SessionID: fmt.Sprintf("session-%d", n%sessions), MessageIndex: int(n % 1000),
	}
}

// StoreNew stores contents that are not there yet through StoreReader.
func StoreNew(s *engine.FileStore, size int) func() error {
	c := NewContent(size)
	return func() error {
		data := c.Next()
		_, err := s.StoreReader(context.Background(), bytes.NewReader(data), info, metadata(serial.Load()))
		return err
	}
}

// present is how many distinct contents StorePresent goes through.
const present = 1000

// Preload stores what StorePresent stores again.
func Preload(s *engine.FileStore, size int) error {
	c := NewContent(size)
	for n := range uint64(present) {
		if _, err := s.StoreReader(context.Background(), bytes.NewReader(c.Same(n)), info, metadata(n)); err != nil {
			return err
		}
	}
	return nil
}

// StorePresent stores contents that are there, through StoreReader, or through
// Store in base64.
func StorePresent(s *engine.FileStore, size int, encoded bool) func() error {
	encodings := make([]string, 0, 16)
	c := NewContent(size)
	if encoded {
		for n := range cap(encodings) {
			c.Same(uint64(n))
			encodings = append(encodings, c.Base64())
		}
	}
	n := serial.Add(7919)
	return func() error {
		n++
		var err error
		if encoded {
			_, err = s.Store(context.Background(), &storage.MediaContent{
				Type: info.Type, MimeType: info.MimeType, Data: encodings[n%uint64(len(encodings))],
			}, metadata(n))
		} else {
			_, err = s.StoreReader(context.Background(), bytes.NewReader(c.Same(n%present)), info, metadata(n))
		}
		return err
	}
}

// Retrieve retrieves one reference.
func Retrieve(s *engine.FileStore, ref *storage.StorageReference) func() error {
	return func() error {
		content, err := s.Retrieve(context.Background(), ref)
		if err == nil && content.Data == "" {
			err = fmt.Errorf("%s is empty", ref.ID)
		}
		return err
	}
}

// OpenRead opens one reference and reads it whole, verified, into a buffer that
// is new each time, or the same if reuse is set.
func OpenRead(s *engine.FileStore, ref *storage.StorageReference, reuse bool) func() error {
	var data []byte
	return func() error {
		b, err := s.Open(context.Background(), ref)
		if err != nil {
			return err
		}
		if data == nil || !reuse {
			data = make([]byte, b.Size())
		}
		if _, err := io.ReadFull(b, data); err != nil {
			return err
		}
		return b.Close()
	}
}

// writeFile writes the bytes of a reference to a file outside the store.
func writeFile(s *engine.FileStore, ref *storage.StorageReference, name string) error {
	b, err := s.Open(context.Background(), ref)
	if err != nil {
		return err
	}
	data := make([]byte, b.Size())
	if _, err := io.ReadFull(b, data); err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}
