package engine

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// AdoptedFrom is the label of an adopted reference: the path that its content had
// where it came from. A path that is not valid UTF-8 is quoted as in Go, one that
// is longer than a label can be has the form "sha256:" and the digest of the path.
const AdoptedFrom = "adopted_from"

// Resolve is the reference that content became which was adopted from a path: for
// what an application remembers of another store. The path is spelled as it was
// there, be it relative or absolute, and need not exist any more. The first call
// reads the record of what was adopted; after a crash during an adoption, or for a
// store that never adopted anything, that is one pass over all references. Errors:
// ErrNotFound for a path that nothing was adopted from and for a reference that was
// deleted since, ErrInvalidRef for an empty path, ErrVersion, ErrCorrupted,
// ErrPermission, ErrIO, ErrClosed, or ctx's.
func (f *FileStore) Resolve(ctx context.Context, origin string) (*storage.StorageReference, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	ref, err := s.resolve(ctx, origin)
	if err != nil {
		return nil, fmt.Errorf("resolve in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return ref, nil
}

func (s *store) resolve(ctx context.Context, origin string) (*storage.StorageReference, error) {
	if origin == "" {
		return nil, fmt.Errorf("%w: no path", storage.ErrInvalidRef)
	}
	s.origins.mu.Lock()
	err := s.readOrigins(ctx)
	id, known := s.origins.known[keyOfOrigin(origin)]
	s.origins.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, fmt.Errorf("%w: nothing was adopted from %q", storage.ErrNotFound, origin)
	}
	ref, blob, err := s.index.Ref(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reference %s, adopted from %q: %w", id, origin, err)
	}
	return reference(id, &ref, &blob), nil
}

// Adoption takes in content that has references elsewhere, each once, however
// often that is begun. It is safe for concurrent use, except that calls for one
// origin need their caller's own order.
type Adoption struct {
	f      *FileStore
	closed sync.Once
}

// Adopt begins an adoption, or waits for the one that is under way. The caller
// closes it. Errors: as with Resolve, and ErrDiskSpace.
func (f *FileStore) Adopt(ctx context.Context) (*Adoption, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	select {
	case s.origins.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	if err = s.readOrigins(ctx); err == nil {
		s.origins.append(markBegin, originKey{}, storage.ID{})
		err = s.writeOrigins()
	}
	if err != nil {
		<-s.origins.turn
		return nil, fmt.Errorf("adopt into %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return &Adoption{f: f}, nil
}

// FindOrigin is the ID of the reference that the content of one of the origins
// became, the first that is known. It may have been deleted since. Errors: as with
// Resolve, without ErrNotFound.
func (f *FileStore) FindOrigin(ctx context.Context, origins ...string) (_ *storage.StorageReference, found bool, err error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	if err := s.readOrigins(ctx); err != nil {
		return nil, false, fmt.Errorf("find origins in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	for _, origin := range origins {
		if id, known := s.origins.known[keyOfOrigin(origin)]; known {
			return &storage.StorageReference{ID: id.String(), Backend: Backend}, true, nil
		}
	}
	return nil, false, nil
}

// Arrival is content that an adoption takes in.
type Arrival struct {
	// Origins are paths that it has elsewhere, none of which has been found. The
	// first becomes the label AdoptedFrom, and all of them lead to the reference.
	Origins []string
	// Count is how many references there were, where they cannot be told apart: as
	// many calls of Delete end the one that they become; see SetCount. Default: 1.
	Count    int64
	Info     storage.MediaInfo
	Metadata storage.MediaMetadata
}

// StoreReader is FileStore.StoreReader for content that has a path elsewhere.
func (a *Adoption) StoreReader(ctx context.Context, r io.Reader, in Arrival) (*storage.StorageReference, error) {
	if len(in.Origins) == 0 || in.Origins[0] == "" {
		return nil, fmt.Errorf("%w: no origin", storage.ErrInvalidMedia)
	}
	if in.Count < 0 {
		return nil, fmt.Errorf("%w: a count of %d", storage.ErrInvalidMedia, in.Count)
	}
	labels := map[string]string{}
	maps.Copy(labels, in.Metadata.Labels)
	labels[AdoptedFrom] = originLabel(in.Origins[0])
	in.Metadata.Labels = labels
	ref, err := a.f.put(ctx, in.Info, in.Metadata, func(s *store, t *ticket) (*payload, string, error) {
		p, err := s.fromReader(ctx, r, knownSize(r), t)
		if err == nil && in.Count > 1 {
			p.count = in.Count
		}
		return p, "", err
	})
	if err != nil {
		return nil, err
	}
	return ref, a.Record(context.WithoutCancel(ctx), ref, in.Origins...)
}

// Record has origins lead to a reference, those that do not lead to one yet. It is durable after Sync or Close; until
// then a crash makes the next adoption look for it by its label.
func (a *Adoption) Record(ctx context.Context, ref *storage.StorageReference, origins ...string) error {
	s, leave, err := a.f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	id, err := parseRef(ref)
	if err != nil {
		return fmt.Errorf("record an origin in %s: %w", s.cfg.BaseDir, err)
	}
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	for _, origin := range origins {
		key := keyOfOrigin(origin)
		if _, there := s.origins.known[key]; !there {
			s.origins.known[key] = id
			s.origins.append(markOrigin, key, id)
		}
	}
	return nil
}

// Sync makes what was recorded durable.
func (a *Adoption) Sync(ctx context.Context) error {
	s, leave, err := a.f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	if err := s.writeOrigins(); err != nil {
		return fmt.Errorf("record origins in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return nil
}

// Close ends the adoption and makes what was recorded durable. Calls after the
// first do nothing.
func (a *Adoption) Close() (err error) {
	a.closed.Do(func() {
		var s *store
		var leave func()
		if s, leave, err = a.f.enter(context.Background()); err != nil {
			return // the next adoption makes up for it
		}
		defer leave()
		s.origins.mu.Lock()
		// The mark comes alone, after what it speaks for.
		if err = s.writeOrigins(); err == nil {
			s.origins.append(markEnd, originKey{}, storage.ID{})
			err = s.writeOrigins()
		}
		s.origins.mu.Unlock()
		<-s.origins.turn
		if err != nil {
			err = fmt.Errorf("end an adoption into %s: %w", s.cfg.BaseDir, storage.Classify(err))
		}
	})
	return err
}
