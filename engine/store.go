package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strconv"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// Backend is the Backend of every reference of a FileStore.
const Backend = "file"

// Store keeps content: its Data in base64 or as a data: URL, or the file at its
// FilePath, streamed. See storage.MediaStorageService.
func (f *FileStore) Store(ctx context.Context, content *storage.MediaContent, metadata storage.MediaMetadata) (*storage.StorageReference, error) {
	if content == nil {
		return nil, fmt.Errorf("%w: no content", storage.ErrInvalidMedia)
	}
	info := storage.MediaInfo{Type: content.Type, MimeType: content.MimeType}
	return f.put(ctx, info, metadata, func(s *store, t *ticket) (*payload, string, error) {
		switch {
		case content.Data != "" && content.FilePath != "":
			return nil, "", fmt.Errorf("%w: both Data and FilePath are set", storage.ErrInvalidMedia)
		case content.Data != "":
			return s.fromData(content.Data)
		case content.FilePath != "":
			p, err := s.fromFile(ctx, content.FilePath, t)
			return p, "", err
		}
		return nil, "", fmt.Errorf("%w: neither Data nor FilePath is set", storage.ErrInvalidMedia)
	})
}

// StoreReader keeps what r reads until io.EOF, of any size in constant memory.
// An error of r ends it with an error that wraps ErrInvalidMedia and r's. A
// MimeType that is not declared is sniffed. Everything else is as with Store.
func (f *FileStore) StoreReader(ctx context.Context, r io.Reader, info storage.MediaInfo, metadata storage.MediaMetadata) (*storage.StorageReference, error) {
	if r == nil {
		return nil, fmt.Errorf("%w: no reader", storage.ErrInvalidMedia)
	}
	return f.put(ctx, info, metadata, func(s *store, t *ticket) (*payload, string, error) {
		p, err := s.fromReader(ctx, r, knownSize(r), t)
		return p, "", err
	})
}

// put is Store for every kind of input. read returns the content and the MIME
// type that it declares itself.
func (f *FileStore) put(ctx context.Context, info storage.MediaInfo, metadata storage.MediaMetadata,
	read func(*store, *ticket) (*payload, string, error),
) (*storage.StorageReference, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	begun := time.Now()
	id, add, blob, err := s.put(ctx, info, metadata, read)
	err = storage.Classify(err)
	s.watch.stored(begun, id, add, &blob, err)
	if err != nil {
		return nil, fmt.Errorf("store into %s: %w", s.cfg.BaseDir, err)
	}
	return reference(id, &add.Ref, &blob), nil
}

// put returns the reference that it added, and its blob as it stands then.
func (s *store) put(ctx context.Context, info storage.MediaInfo, metadata storage.MediaMetadata,
	read func(*store, *ticket) (*payload, string, error),
) (id storage.ID, add *storage.Addition, blob storage.BlobRow, err error) {
	if err := metadata.Validate(); err != nil {
		return id, nil, blob, err
	}
	if metadata.Policy != "" {
		if _, err := ParsePolicy(metadata.Policy); err != nil {
			return id, nil, blob, err
		}
	}
	t := s.ticket(&metadata)
	defer t.giveBack()
	p, declared, err := read(s, t)
	if err != nil {
		return id, nil, blob, err
	}
	p.ticket = t
	defer p.free()
	if info.MimeType == "" {
		info.MimeType = declared
	}
	if s.cfg.WrapPCM {
		if err := s.wrapPCM(ctx, p, &info, &metadata); err != nil {
			return id, nil, blob, errors.Join(err, s.drop(ctx, p))
		}
	}
	if add, id, err = s.addition(p, info, metadata); err != nil {
		return id, nil, blob, errors.Join(err, s.drop(ctx, p))
	}
	blob, err = s.add(ctx, p, add)
	return id, add, blob, err
}

// addition makes the rows of a new reference.
func (s *store) addition(p *payload, declared storage.MediaInfo, metadata storage.MediaMetadata) (*storage.Addition, storage.ID, error) {
	var id storage.ID
	info, err := describe(declared, p.head)
	if err != nil {
		return nil, id, err
	}
	if id.UUID, err = s.mint.next(); err != nil {
		return nil, id, err
	}
	key, shared := s.sharedKey(p.digest, &metadata)
	copy(id.Hash[:], p.digest[:])
	if !shared {
		key = storage.UUIDKey(id.UUID)
		_, _ = rand.Read(id.Hash[:]) // is documented to never fail
	}
	created := s.cfg.now()
	expires, err := s.cfg.retention(info, &metadata, created)
	if err != nil {
		return nil, id, err
	}
	if metadata.CreatedAt.IsZero() {
		metadata.CreatedAt = created
	} else {
		metadata.CreatedAt = metadata.CreatedAt.UTC().Truncate(1000)
	}
	return &storage.Addition{
		Ref: storage.RefRow{UUID: id.UUID, Blob: key, Type: info.Type, MimeType: info.MimeType, Metadata: metadata, ExpiresAt: expires, Count: p.count},
		Blob: storage.BlobRow{
			Key: key, Path: path.Join(blobs.Dir(s.cfg.Organization, &metadata), blobs.FileName(id, info.MimeType)),
			Organization: s.cfg.Organization, Size: p.size, CRC: p.crc, Digest: p.digest, MimeType: info.MimeType,
			CreatedAt: created,
		},
	}, id, nil
}

// add adds a reference to the blob that has these bytes, or stores them. When
// it returns an error, nothing of them is left.
func (s *store) add(ctx context.Context, p *payload, add *storage.Addition) (storage.BlobRow, error) {
	blob, err := s.place(ctx, p, add)
	if err == nil {
		s.mirror(context.WithoutCancel(ctx), &blob, &storage.SidecarLine{First: add.Staged, Ref: &add.Ref})
	}
	return blob, err
}

// place is add without the line of the sidecar, which may have to be written under
// the lock of the blob's key and so waits until that is free.
func (s *store) place(ctx context.Context, p *payload, add *storage.Addition) (storage.BlobRow, error) {
	if err := p.ticket.reserveReference(ctx, p); err != nil {
		return storage.BlobRow{}, errors.Join(err, s.drop(ctx, p))
	}
	dedup := add.Blob.Key.Shared()
	if dedup {
		blob, there, err := s.share(ctx, add)
		if there {
			s.dropShared(ctx, p)
			return blob, nil
		} else if err != nil {
			return blob, errors.Join(err, s.drop(ctx, p))
		}
	}
	// From here on nobody else brings or removes the same bytes. The second
	// of two who bring them at the same time finds them there.
	unlock, err := s.keys.lock(ctx, add.Blob.Key)
	if err != nil {
		return storage.BlobRow{}, errors.Join(err, s.drop(ctx, p))
	}
	defer unlock()
	target := add.Blob.Path
	if dedup {
		blob, there, err := s.shareStuck(ctx, add)
		if there {
			s.dropShared(ctx, p)
			return blob, nil
		} else if err != nil {
			return blob, errors.Join(err, s.drop(ctx, p))
		}
		if blob.Path != "" {
			target = blob.Path // healed where it was
		}
	}
	if err := p.ticket.reserveBlob(ctx, p, add.Blob.Key, target != add.Blob.Path); err != nil {
		return storage.BlobRow{}, errors.Join(err, s.drop(ctx, p))
	}
	return s.insert(ctx, p, add, target)
}

// shareStuck is share for a caller that holds the lock of the key. A blob that is in
// staging alone because an earlier publish failed is published first, so that staging
// the same bytes again does not put its only copy at risk.
func (s *store) shareStuck(ctx context.Context, add *storage.Addition) (blob storage.BlobRow, there bool, err error) {
	blob, there, err = s.share(ctx, add)
	if there || err != nil || blob.Path == "" {
		return blob, there, err
	}
	good, err := s.stagedMatches(ctx, &blob)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !good {
		return blob, false, nil
	} else if err != nil {
		return blob, false, err
	}
	if err := s.publish(ctx, &blob); err != nil {
		return blob, false, err
	}
	s.cfg.Logger.Info("published a blob whose first publish had failed", "store", s.cfg.BaseDir, "path", blob.Path)
	return s.share(ctx, add)
}

// drop removes the spool of a payload that is not going to be staged.
func (s *store) drop(ctx context.Context, p *payload) error {
	if p.spool == "" {
		return nil
	}
	return s.blobs.Drop(context.WithoutCancel(ctx), p.spool)
}

// dropShared is drop for a payload whose reference was added to bytes that were
// there: that stands, and the next opening removes what stays.
func (s *store) dropShared(ctx context.Context, p *payload) {
	if err := s.drop(ctx, p); err != nil {
		s.cfg.Logger.Warn("a stream's copy in staging stays for now", "store", s.cfg.BaseDir, "path", p.spool, "error", err)
	}
}

// share adds a reference to a blob whose row and file are there, whose line is left
// to the caller. there is false when the bytes have to be staged: they are new, or the file is missing or not
// as it was, and then blob is its row.
func (s *store) share(ctx context.Context, add *storage.Addition) (blob storage.BlobRow, there bool, err error) {
	blob, err = s.index.Blob(ctx, add.Blob.Key)
	if errors.Is(err, storage.ErrNotFound) {
		return storage.BlobRow{}, false, nil
	} else if err != nil {
		return blob, false, err
	}
	size, err := s.blobs.Size(ctx, blob.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupted), err == nil && size != blob.Size:
		return blob, false, nil
	case err != nil:
		return blob, false, err
	}
	blob, err = s.index.Add(ctx, add)
	if errors.Is(err, storage.ErrNotFound) {
		return storage.BlobRow{}, false, nil // deleted meanwhile
	} else if err != nil {
		return blob, false, err
	}
	return blob, true, nil
}

// insert brings bytes to disk, at the path target: stage, sync, commit, publish.
// The caller holds the lock of the key.
func (s *store) insert(ctx context.Context, p *payload, add *storage.Addition, target string) (storage.BlobRow, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return storage.BlobRow{}, errors.Join(ctx.Err(), s.drop(ctx, p))
	}
	key := add.Blob.Key
	if p.spool == "" {
		add.Blob.CRC = crc32.Checksum(p.data, castagnoli)
	}
	if err := s.stage(ctx, p, key); err != nil {
		return storage.BlobRow{}, err
	}
	after := context.WithoutCancel(ctx)
	done, err := s.blobs.Prepare(ctx, target)
	if err != nil {
		return storage.BlobRow{}, errors.Join(err, s.blobs.Discard(after, key))
	}
	published := false
	defer func() { done(published) }()
	if err := s.faults.reach(ctx, faultStaged); err != nil {
		return storage.BlobRow{}, errors.Join(err, s.blobs.Discard(after, key))
	}
	add.Staged = true
	blob, err := s.index.Add(ctx, add)
	if err != nil {
		return storage.BlobRow{}, errors.Join(err, s.discardFailed(after, key, err))
	}
	if err := s.faults.reach(ctx, faultCommitted); err != nil {
		return blob, err
	}
	if blob.Path != target {
		// The row of the blob to be healed went meanwhile.
		done(false)
		target = blob.Path
		if done, err = s.blobs.Prepare(after, target); err != nil {
			done = func(bool) {}
			return storage.BlobRow{}, errors.Join(err, s.undo(after, add, &blob))
		}
	}
	if err := s.blobs.Publish(after, key, target); err != nil {
		return storage.BlobRow{}, errors.Join(err, s.undo(after, add, &blob))
	}
	published = true
	return blob, s.faults.reach(ctx, faultPublished)
}

// stage stages a payload under its key. After an error nothing of it is left.
func (s *store) stage(ctx context.Context, p *payload, key storage.BlobKey) error {
	if p.spool == "" {
		return s.blobs.Stage(ctx, key, p.data)
	}
	if err := s.blobs.Claim(ctx, p.spool, key); err != nil {
		return errors.Join(err, s.drop(ctx, p))
	}
	return nil
}

// discardFailed removes what was staged for a commit that failed. When the
// commit is in doubt, the staged bytes stay for the next opening.
func (s *store) discardFailed(ctx context.Context, key storage.BlobKey, cause error) error {
	if errors.Is(cause, storage.ErrInDoubt) {
		return nil
	}
	return s.blobs.Discard(ctx, key)
}

// undo takes back a reference whose blob could not be published.
func (s *store) undo(ctx context.Context, add *storage.Addition, blob *storage.BlobRow) error {
	id, err := idOf(blob, add.Ref.UUID)
	if err != nil {
		return err
	}
	removal, err := s.index.Remove(ctx, id)
	if err != nil {
		return fmt.Errorf("reference %s stays behind: %w", id, err)
	}
	if !removal.Found {
		return nil // somebody deleted it meanwhile
	}
	// Where this call made the row and others have joined it since, what is
	// staged is all there is. Otherwise it is this call's own.
	joined := blob.Refs == 1 && !removal.Last
	if !joined {
		err = s.blobs.Discard(ctx, blob.Key)
	}
	// The caller holds the key's lock, which payRemoval would wait for.
	if !removal.Last {
		s.limits.freed()
		s.mirrorLocked(&removal.Blob, removalLine(id.UUID, &removal))
		return err
	}
	u := owedUnlink{key: blob.Key, path: blob.Path}
	if err := errors.Join(err, s.blobs.Remove(ctx, blob.Key, blob.Path)); err != nil {
		s.ledger.oweUnlink(u)
		return err
	}
	s.ledger.payUnlink(u.path)
	return nil
}

// reference is what a caller gets.
func reference(id storage.ID, ref *storage.RefRow, blob *storage.BlobRow) *storage.StorageReference {
	r := &storage.StorageReference{
		ID: id.String(), Backend: Backend, CreatedAt: ref.Metadata.CreatedAt,
		Metadata: map[string]string{
			"path": blob.Path, "org": string(blob.Organization), "size": strconv.FormatInt(blob.Size, 10),
			"type": ref.Type, "mime_type": ref.MimeType,
		},
	}
	if d := blob.Digest.String(); d != "" {
		r.Metadata["sha256"] = d
	}
	if from, converted := ref.Metadata.Labels[ConvertedFrom]; converted {
		r.Metadata[ConvertedFrom] = from
	}
	return r
}
