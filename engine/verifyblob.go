package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// sampled says whether the bytes of a blob are to be read: a choice by seed and
// key alone, so that a verification that is resumed makes the same.
func (v *verification) sampled(key storage.BlobKey) bool {
	if v.opts.Sample == 100 {
		return true
	}
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, v.opts.Seed), key...))
	const all = 1 << 53 // what a float64 holds exactly
	return float64(binary.BigEndian.Uint64(sum[:])>>(64-53))/all*100 < v.opts.Sample
}

// checkFile compares a row with its file.
func (v *verification) checkFile(ctx context.Context, row *storage.BlobRow) (kind storage.FindingKind, detail string, err error) {
	file, size, err := v.s.blobs.Open(ctx, row.Key, row.Path)
	switch {
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case errors.Is(err, storage.ErrNotFound):
		return storage.FindingMissing, "the file is not there; store the same bytes again to heal it, or restore it", nil
	case err != nil:
		return storage.FindingUnreadable, err.Error(), nil
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if size != row.Size {
		return storage.FindingSize, fmt.Sprintf("the file has %d bytes, its row says %d; store the same bytes again to heal it, or restore it", size, row.Size), nil
	}
	if v.opts.Depth == DepthQuick || !v.sampled(row.Key) {
		return "", "", nil
	}
	return v.checkBytes(ctx, row, file)
}

// checkBytes reads a blob and compares it with the sums of its row.
func (v *verification) checkBytes(ctx context.Context, row *storage.BlobRow, file io.Reader) (kind storage.FindingKind, detail string, err error) {
	crc := crc32.New(castagnoli)
	into := io.Writer(crc)
	var sha hash.Hash
	if v.opts.Depth == DepthDeep && !row.Digest.IsZero() {
		sha = sha256.New()
		into = io.MultiWriter(crc, sha)
	}
	buf := newBuffer(0)
	defer freeBuffer(buf)
	_, err = io.CopyBuffer(struct{ io.Writer }{into}, &pacedReader{ctx, v, file}, *buf)
	switch {
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case err != nil:
		return storage.FindingUnreadable, storage.Classify(err).Error(), nil
	case crc.Sum32() != row.CRC:
		return storage.FindingChecksum, fmt.Sprintf("CRC-32C %08x, its row says %08x; restore the file from a backup, or move the damaged file away and store the same bytes again", crc.Sum32(), row.CRC), nil
	}
	if sha != nil {
		if sum := storage.Digest(sha.Sum(nil)); sum != row.Digest {
			return storage.FindingChecksum, fmt.Sprintf("SHA-256 %s, its row says %s, though the CRC-32C is right: these bytes were made to look like those stored, or the row is damaged", sum, row.Digest), nil
		}
	}
	return "", "", nil
}

// pacedReader reads as fast as the verification may, and until ctx ends.
type pacedReader struct {
	ctx context.Context
	v   *verification
	r   io.Reader
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.v.read.Add(int64(n))
	if e := p.v.pace.pay(p.ctx, n); e != nil {
		return n, e
	}
	return n, err
}

// lockedSidecarFault is what is still wrong with a sidecar, empty for nothing.
func (s *store) lockedSidecarFault(ctx context.Context, row *storage.BlobRow) (string, error) {
	unlock, err := s.keys.lock(ctx, row.Key)
	if err != nil {
		return "", err
	}
	defer unlock()
	_, detail, err := s.stillSidecarFault(ctx, row)
	return detail, err
}

// stillSidecarFault looks at sidecar, rows and debt, in this order, and answers the
// row as it is now. The caller holds the lock of the key, under which lines are
// written, so that what the sidecar lacks stays in the debt meanwhile.
func (s *store) stillSidecarFault(ctx context.Context, row *storage.BlobRow) (now storage.BlobRow, detail string, err error) {
	now, err = s.index.Blob(ctx, row.Key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && now.Path != row.Path {
		return now, "", nil
	} else if err != nil {
		return now, "", err
	}
	if detail, err = s.sidecarFault(ctx, &now); err != nil || detail == "" {
		return now, "", err
	}
	debt, err := s.index.Debt(ctx)
	if err != nil {
		return now, "", err
	}
	for i := range debt.Mirrors {
		if debt.Mirrors[i].Blob == row.Key {
			return now, "", nil // lines that are still owed are no fault of the sidecar
		}
	}
	if stands, err := s.stands(ctx, &now); err != nil || !stands {
		return now, "", err
	}
	return now, detail, nil
}

// sidecarFault is what is wrong with a sidecar: it must tell of the blob, and
// of as many live references as the refcount says, all of which are rows, with what
// has changed of them as the rows have it.
func (s *store) sidecarFault(ctx context.Context, row *storage.BlobRow) (string, error) {
	sidecar, err := s.blobs.ReadSidecar(ctx, row.Path)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, storage.ErrNotFound):
		return "the sidecar is not there", nil
	case err != nil:
		return err.Error(), nil
	case sidecar.Blob.Key != row.Key:
		return fmt.Sprintf("the sidecar tells of blob %q, its row is %s", sidecar.Blob.Key, row.Key), nil
	case sidecar.Blob.Size != row.Size || sidecar.Blob.CRC != row.CRC:
		return fmt.Sprintf("the sidecar says %d bytes of CRC-32C %08x, its row %d and %08x", sidecar.Blob.Size, sidecar.Blob.CRC, row.Size, row.CRC), nil
	}
	live := sidecar.Live()
	for u, told := range live {
		id, err := idOf(row, u)
		if err != nil {
			return "", err
		}
		ref, _, err := s.index.Ref(ctx, id)
		switch {
		case errors.Is(err, storage.ErrNotFound), err == nil && ref.Blob != row.Key:
			return fmt.Sprintf("the sidecar has reference %s, the index does not", id), nil
		case err != nil:
			return "", err
		case !sameState(told, &ref):
			return fmt.Sprintf("the sidecar says of reference %s %s, its row %s", id, stateOf(told), stateOf(&ref)), nil
		}
	}
	if int64(len(live)) != row.Refs {
		return fmt.Sprintf("the sidecar has %d live references (%d lines cannot be read), the row's refcount is %d", len(live), sidecar.Damaged, row.Refs), nil
	}
	return "", nil
}

// sameState compares what changes in the life of a reference.
func sameState(a, b *storage.RefRow) bool {
	return a.Revision == b.Revision && a.Count == b.Count && a.Metadata.Policy == b.Metadata.Policy && a.ExpiresAt.Equal(b.ExpiresAt)
}

// stateOf is what sameState compares, in words.
func stateOf(ref *storage.RefRow) string {
	expires := "never"
	if !ref.ExpiresAt.IsZero() {
		expires = ref.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("revision %d, count %d, policy %q, expires %s", ref.Revision, ref.Count, ref.Metadata.Policy, expires)
}
