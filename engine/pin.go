package engine

import (
	"context"
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// pins keep the files of deleted blobs while somebody still reads them by their
// paths: their removal is put off, and owed in the index's debt meanwhile, so that
// after a crash the next opening removes them.
type pins struct {
	mu      sync.Mutex // guards the rest; a leaf lock
	holders int
	files   map[string]storage.BlobKey // to be removed when nobody holds, by path
}

// hold keeps files of blobs that are deleted from now on until release.
func (p *pins) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holders++
}

// defers says whether the removal of a file has been put off.
func (p *pins) defers(u owedUnlink) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holders == 0 {
		return false
	}
	if p.files == nil {
		p.files = map[string]storage.BlobKey{}
	}
	p.files[u.path] = u.key
	return true
}

// keeps says whether a file is of a deleted blob and kept on purpose.
func (p *pins) keeps(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, kept := p.files[path]
	return kept
}

// release ends a hold, and returns what is to be removed then.
func (p *pins) release() map[string]storage.BlobKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holders--; p.holders > 0 {
		return nil
	}
	files := p.files
	p.files = nil
	return files
}

// unpin ends a hold and removes the files that were kept.
func (s *store) unpin(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for path, key := range s.pins.release() {
		s.payRemoval(ctx, storage.UUID{}, &storage.Removal{Last: true, Blob: storage.BlobRow{Key: key, Path: path}})
	}
}
