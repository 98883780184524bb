package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// ingestion brings one blob with references that have their UUIDs, times and all
// else already, from another store or an earlier life of this one. Those that are
// there already are left as they are.
type ingestion struct {
	blob    storage.BlobRow // as it was where it comes from
	refs    []storage.RefRow
	payload *payload

	key    storage.BlobKey // of the blob in this store
	joined bool            // the key is that of a blob that is there
	spent  bool            // the payload has been staged or dropped
	added  int64           // references
	fresh  bool            // the bytes were not there
}

// ingest adds what is missing. A reference that is there with other content or
// metadata is ErrConflict. What was added before an error stays, and is there when
// the same is ingested again.
func (s *store) ingest(ctx context.Context, in *ingestion) (err error) {
	defer func() {
		if !in.spent {
			err = errors.Join(err, s.drop(ctx, in.payload))
		}
	}()
	// Nobody else gives references to the same blob their UUIDs meanwhile.
	unlock, err := s.given.lock(ctx, "blob "+in.blob.Key)
	if err != nil {
		return err
	}
	defer unlock()
	in.key = in.blob.Key
	if _, shared := in.key.Digest(); !shared {
		// A path is never used twice, and the file of a blob of its own is found by
		// the UUID in its name, that of its key: so it gets another.
		id, err := s.mint.next()
		if err != nil {
			return err
		}
		in.key = storage.UUIDKey(id)
	}
	missing, err := s.missing(ctx, in)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := s.unbury(ctx, in.key, missing); err != nil {
		return err
	}
	for i := range missing {
		if err := s.ingestRef(ctx, in, missing[i]); err != nil {
			return err
		}
	}
	return nil
}

// missing are the references that are not there.
func (s *store) missing(ctx context.Context, in *ingestion) ([]storage.RefRow, error) {
	var missing []storage.RefRow
	for i := range in.refs {
		found, err := s.foundSame(ctx, in, &in.refs[i])
		if err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, in.refs[i])
		}
	}
	return missing, nil
}

// foundSame says whether a reference is there as it is brought, and joins its blob.
func (s *store) foundSame(ctx context.Context, in *ingestion, ref *storage.RefRow) (bool, error) {
	there, found, err := s.byUUID(ctx, ref.UUID)
	if err != nil || !found {
		return false, err
	}
	same, err := in.same(&there, ref)
	if err != nil {
		return false, err
	}
	if !same {
		return false, fmt.Errorf("%w: reference %s-%s is in the store with other content or metadata; delete it there to have this one",
			storage.ErrConflict, in.blob.NameHash(), ref.UUID)
	}
	_, shared := in.key.Digest()
	in.key, in.joined = there.Blob.Key, !shared
	return true, nil
}

func (s *store) ingestRef(ctx context.Context, in *ingestion, ref storage.RefRow) error {
	// To the index a UUID that is there is a new one.
	unlock, err := s.given.lock(ctx, storage.UUIDKey(ref.UUID))
	if err != nil {
		return err
	}
	defer unlock()
	if found, err := s.foundSame(ctx, in, &ref); err != nil || found {
		return err
	}
	id, err := storage.ParseID(in.blob.NameHash() + "-" + ref.UUID.String())
	if err != nil {
		return fmt.Errorf("%w: path %q has no name of a blob", storage.ErrCorrupted, in.blob.Path)
	}
	begun := time.Now()
	blob, add, err := s.ingestMissing(ctx, in, id, ref)
	err = storage.Classify(err)
	s.watch.stored(begun, id, add, &blob, err)
	if err != nil {
		return fmt.Errorf("reference %s: %w", id, err)
	}
	in.added++
	in.fresh = in.fresh || add.Staged
	return nil
}

// ingestMissing adds a reference that is not there. The first one brings the bytes.
func (s *store) ingestMissing(ctx context.Context, in *ingestion, id storage.ID, ref storage.RefRow) (storage.BlobRow, *storage.Addition, error) {
	name, err := s.mint.next()
	if err != nil {
		return storage.BlobRow{}, nil, err
	}
	if _, shared := in.key.Digest(); !shared {
		copy(name[:], in.key[1:])
	}
	add := &storage.Addition{Ref: ref, Blob: in.blob}
	add.Ref.Blob, add.Blob.Key, add.Blob.Refs = in.key, in.key, 0
	add.Blob.Organization = s.cfg.Organization
	add.Blob.Path = path.Join(blobs.Dir(s.cfg.Organization, &ref.Metadata),
		blobs.FileName(storage.ID{Hash: id.Hash, UUID: name}, in.blob.MimeType))
	t := s.ticket(&ref.Metadata)
	defer t.giveBack()
	if !in.spent && !in.joined {
		in.spent = true
		in.payload.ticket = t
		blob, err := s.add(ctx, in.payload, add)
		return blob, add, err
	}
	if err := t.reserveReference(ctx, in.payload); err != nil {
		return storage.BlobRow{}, nil, err
	}
	blob, there, err := s.share(ctx, add)
	if err == nil && !there {
		err = fmt.Errorf("%w: its bytes were deleted meanwhile: import again", storage.ErrNotFound)
	}
	if err == nil {
		s.mirror(context.WithoutCancel(ctx), &blob, &storage.SidecarLine{Ref: &add.Ref})
	}
	return blob, add, err
}

// byUUID finds the reference of a UUID, whatever the hash in its ID.
func (s *store) byUUID(ctx context.Context, id storage.UUID) (pair storage.RefPair, found bool, err error) {
	page, _, _, err := s.index.Refs(ctx, storage.RefFilter{}, before(id), 1)
	if err != nil || len(page) == 0 || page[0].Ref.UUID != id {
		return pair, false, err
	}
	return page[0], true, nil
}

// before is the UUID before one that is not zero.
func before(id storage.UUID) storage.UUID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]--; id[i] != 0xff {
			break
		}
	}
	return id
}

// same says whether a reference that is there is the one that is brought: what a
// sidecar says of both tells, but for what may change in its life.
func (in *ingestion) same(there *storage.RefPair, ref *storage.RefRow) (bool, error) {
	blob := &there.Blob
	if blob.NameHash() != in.blob.NameHash() || blob.Size != in.blob.Size || blob.CRC != in.blob.CRC || blob.Digest != in.blob.Digest {
		return false, nil
	}
	a, err := blobs.EncodeSidecar(blob, []storage.RefRow{there.Ref})
	if err != nil {
		return false, err
	}
	brought := *ref
	brought.Metadata.Policy, brought.ExpiresAt = there.Ref.Metadata.Policy, there.Ref.ExpiresAt
	brought.Count, brought.Revision = there.Ref.Count, there.Ref.Revision
	b, err := blobs.EncodeSidecar(blob, []storage.RefRow{brought})
	return bytes.Equal(a, b), err
}

// check refuses rows that no store has: they come from outside.
func (in *ingestion) check() error {
	blob := &in.blob
	if err := (storage.MediaInfo{MimeType: blob.MimeType}).Validate(); err != nil {
		return err
	}
	if digest, shared := blob.Key.Digest(); shared && digest != blob.Digest {
		return fmt.Errorf("%w: blob %s says that its SHA-256 is %s", storage.ErrCorrupted, blob.Key, blob.Digest)
	}
	if len(in.refs) == 0 {
		return fmt.Errorf("%w: blob %s has no references", storage.ErrCorrupted, blob.Key)
	}
	for i := range in.refs {
		ref := &in.refs[i]
		id, err := storage.ParseID(blob.NameHash() + "-" + ref.UUID.String())
		if err != nil || ref.UUID.IsZero() {
			return fmt.Errorf("%w: path %q and UUID %s make no ID", storage.ErrCorrupted, blob.Path, ref.UUID)
		}
		if ref.Count < 0 {
			return fmt.Errorf("%w: reference %s has a count of %d", storage.ErrCorrupted, id, ref.Count)
		}
		if _, shared := blob.Key.Digest(); shared && [3]byte(blob.Digest[:3]) != id.Hash {
			return fmt.Errorf("%w: the hash in the name of path %q is not that of SHA-256 %s", storage.ErrCorrupted, blob.Path, blob.Digest)
		}
		if err := ref.Metadata.Validate(); err != nil {
			return fmt.Errorf("reference %s: %w", id, err)
		}
		if _, err := describe(storage.MediaInfo{Type: ref.Type, MimeType: ref.MimeType}, nil); err != nil {
			return fmt.Errorf("reference %s: %w", id, err)
		}
	}
	return nil
}

// checkBytes compares the bytes with what is said of them.
func (in *ingestion) checkBytes() error {
	p := in.payload
	if p.spool == "" && p.refused == nil {
		p.crc = crc32.Checksum(p.data, castagnoli)
	}
	switch blob := &in.blob; {
	case p.size != blob.Size:
		return fmt.Errorf("%w: %d bytes, its row says %d", storage.ErrCorrupted, p.size, blob.Size)
	case p.crc != blob.CRC:
		return fmt.Errorf("%w: CRC-32C %08x, its row says %08x", storage.ErrCorrupted, p.crc, blob.CRC)
	case !blob.Digest.IsZero() && p.digest != blob.Digest:
		return fmt.Errorf("%w: SHA-256 %s, its row says %s", storage.ErrCorrupted, p.digest, blob.Digest)
	}
	return nil
}
