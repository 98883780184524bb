package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Retrieve returns the verified content of a reference, its Data in standard
// base64. It needs memory for all of it at once; Open does not. See
// storage.MediaStorageService.
func (f *FileStore) Retrieve(ctx context.Context, ref *storage.StorageReference) (*storage.MediaContent, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	begun := time.Now()
	content, b, err := s.retrieve(ctx, ref)
	err = storage.Classify(err)
	s.watch.retrieved(begun, ref, b, err)
	if err != nil {
		return nil, fmt.Errorf("retrieve from %s: %w", s.cfg.BaseDir, err)
	}
	return content, nil
}

// retrieve returns the content of a reference and the Blob, closed, that it was
// read from.
func (s *store) retrieve(ctx context.Context, ref *storage.StorageReference) (_ *storage.MediaContent, _ *Blob, err error) {
	b, err := s.open(ctx, OpRetrieve, ref)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	buffer := newBuffer(int(b.Size()))
	defer freeBuffer(buffer)
	data := (*buffer)[:b.Size()]
	// A blob is read in pieces, so that a cancelled call does not read on.
	for off := 0; off < len(data); {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		n, err := b.Read(data[off:min(len(data), off+retrievePiece)])
		if err != nil {
			return nil, nil, err
		}
		off += n
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		return nil, nil, err
	}
	return &storage.MediaContent{Type: b.Type(), MimeType: b.MimeType(), Data: encodeBase64(data)}, b, nil
}

// retrievePiece is how much is read between two looks at the context, in bytes.
const retrievePiece = 4 << 20
