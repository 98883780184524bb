package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	content, err := s.retrieve(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("retrieve from %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return content, nil
}

func (s *store) retrieve(ctx context.Context, ref *storage.StorageReference) (_ *storage.MediaContent, err error) {
	b, err := s.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	buffer := newBuffer(int(b.Size()))
	defer freeBuffer(buffer)
	data := (*buffer)[:b.Size()]
	// A blob is read in pieces, so that a cancelled call does not read on.
	for off := 0; off < len(data); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := b.Read(data[off:min(len(data), off+retrievePiece)])
		if err != nil {
			return nil, err
		}
		off += n
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		return nil, err
	}
	return &storage.MediaContent{Type: b.Type(), MimeType: b.MimeType(), Data: encodeBase64(data)}, nil
}

// retrievePiece is how much is read between two looks at the context, in bytes.
const retrievePiece = 4 << 20
