package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Blob is a stored blob, open for reading. It is an io.ReadSeekCloser, an
// io.ReaderAt and an io.WriterTo.
//
// No damaged bytes pass as good. Reading from the beginning to the end checks
// the CRC-32C on the way, and damage shows as ErrCorrupted before the last byte
// is handed over. The first read of any other kind (ReadAt, or Read after a
// Seek into the middle) checks the whole blob once.
//
// ReadAt is safe for concurrent use; the other methods are not.
type Blob struct {
	file storage.File
	ref  storage.RefRow
	row  storage.BlobRow
	id   storage.ID

	watch   *observer
	reading Operation   // that it was opened for
	told    atomic.Bool // damage has been told of

	offset int64 // of the next Read
	summed int64 // the CRC covers the bytes before it
	sum    uint32

	once   sync.Once // checks the whole
	damage error     // what the check found; written in once
	whole  bool      // Read came to the end and the sum was right
}

// Open opens the blob of a reference. The handle stays good when the reference
// is deleted or the store is closed. Errors: ErrInvalidRef, ErrNotFound,
// ErrCorrupted (then with ErrNotFound if the file vanished), ErrPermission,
// ErrIO, ErrClosed, or ctx's.
func (f *FileStore) Open(ctx context.Context, ref *storage.StorageReference) (*Blob, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	b, err := s.openTold(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("open in %s: %w", s.cfg.BaseDir, err)
	}
	return b, nil
}

// openTold opens the blob of a reference for a caller, and tells of it.
func (s *store) openTold(ctx context.Context, ref *storage.StorageReference) (*Blob, error) {
	begun := time.Now()
	b, err := s.open(ctx, OpOpen, ref)
	err = storage.Classify(err)
	s.watch.opened(begun, ref, b, err)
	if err != nil {
		return nil, err
	}
	b.reading = OpRead
	return b, nil
}

// open opens the blob of a reference for an operation.
func (s *store) open(ctx context.Context, op Operation, ref *storage.StorageReference) (*Blob, error) {
	id, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	b, err := s.openOnce(ctx, id)
	if errors.Is(err, storage.ErrCorrupted) {
		// The blob may have been deleted, healed or stored anew between the
		// look at its row and the look at its file.
		b, err = s.openOnce(ctx, id)
	}
	if err != nil {
		s.watch.unreadable(op, id, err)
		return nil, fmt.Errorf("reference %s: %w", id, err)
	}
	b.reading = op
	return b, nil
}

func (s *store) openOnce(ctx context.Context, id storage.ID) (*Blob, error) {
	row, blob, err := s.index.Ref(ctx, id)
	if err != nil {
		return nil, err
	}
	file, size, err := s.blobs.Open(ctx, blob.Key, blob.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		err = fmt.Errorf("%w: %w: store the same bytes again to heal it, or restore the file", storage.ErrCorrupted, err)
		return nil, &damageError{err, storage.FindingMissing, blob}
	case err != nil:
		return nil, &damageError{err, storage.FindingUnreadable, blob}
	case size != blob.Size:
		err = fmt.Errorf("%w: file %s has %d bytes, its row says %d", storage.ErrCorrupted, blob.Path, size, blob.Size)
		return nil, &damageError{errors.Join(err, file.Close()), storage.FindingSize, blob}
	}
	s.touch(&blob)
	return &Blob{file: file, ref: row, row: blob, id: id, watch: s.watch}, nil
}

// accessGrain is how coarse times of access are: reads within it of the last
// one that was noted change nothing.
const accessGrain = time.Hour

func (s *store) touch(blob *storage.BlobRow) {
	if t := now(); t.Sub(blob.AccessedAt) >= accessGrain {
		s.index.Touch(blob.Key, t)
	}
}

// ID is the ID of the reference.
func (b *Blob) ID() string { return b.id.String() }

// Size is the size in bytes.
func (b *Blob) Size() int64 { return b.row.Size }

// Type is the kind of media, as it was stored with this reference.
func (b *Blob) Type() string { return b.ref.Type }

// MimeType is the media type, as it was stored with this reference.
func (b *Blob) MimeType() string { return b.ref.MimeType }

// Digest is the SHA-256 of the bytes, zero where it is not known.
func (b *Blob) Digest() storage.Digest { return b.row.Digest }

// CreatedAt is the time of the reference.
func (b *Blob) CreatedAt() time.Time { return b.ref.Metadata.CreatedAt }

// StoredAt is when the bytes were first stored.
func (b *Blob) StoredAt() time.Time { return b.row.CreatedAt }

// Close closes the file.
func (b *Blob) Close() error { return b.file.Close() }

// Read reads on from the offset. See Blob for what it checks.
func (b *Blob) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.offset >= b.row.Size {
		return 0, b.atEnd()
	}
	if b.offset > b.summed {
		n, err := b.ReadAt(p[:min(int64(len(p)), b.row.Size-b.offset)], b.offset)
		b.offset += int64(n)
		return n, err
	}
	n, err := b.file.ReadAt(p[:min(int64(len(p)), b.row.Size-b.offset)], b.offset)
	if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
		return 0, b.tell(b.readError(err))
	}
	if fresh := b.offset + int64(n) - b.summed; fresh > 0 {
		b.sum = crc32.Update(b.sum, castagnoli, p[int64(n)-fresh:n])
		b.summed += fresh
	}
	if b.summed == b.row.Size {
		if err := b.judge(b.sum); err != nil {
			return 0, b.tell(err)
		}
		b.whole = true
	}
	b.offset += int64(n)
	return n, nil
}

// atEnd is what a read at the end answers. An empty blob has only this one.
func (b *Blob) atEnd() error {
	if b.row.Size == 0 && !b.whole {
		if err := b.judge(0); err != nil {
			return b.tell(err)
		}
		b.whole = true
	}
	return io.EOF
}

// ReadAt reads at an offset, as io.ReaderAt says. The first one checks the
// whole blob.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read of %s at offset %d", b.id, off)
	}
	if err := b.checkWhole(); err != nil {
		return 0, b.tell(err)
	}
	if off >= b.row.Size {
		return 0, io.EOF
	}
	short := int64(len(p)) > b.row.Size-off
	if short {
		p = p[:b.row.Size-off]
	}
	n, err := b.file.ReadAt(p, off)
	if n < len(p) {
		return n, b.tell(b.readError(err))
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// Seek sets the offset of the next Read, as io.Seeker says.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += b.offset
	case io.SeekEnd:
		offset += b.row.Size
	default:
		return 0, fmt.Errorf("seek in %s: whence %d", b.id, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in %s: offset %d", b.id, offset)
	}
	b.offset = offset
	return offset, nil
}

// WriteTo writes what is left to w, checked on the way.
func (b *Blob) WriteTo(w io.Writer) (int64, error) {
	buf := newBuffer(0)
	defer freeBuffer(buf)
	// The wrapper hides this method, which the copy would otherwise call.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{b}, *buf)
}

func (b *Blob) checkWhole() error {
	b.once.Do(func() {
		buf := newBuffer(0)
		defer freeBuffer(buf)
		var sum uint32
		for off := int64(0); off < b.row.Size; {
			n, err := b.file.ReadAt((*buf)[:min(int64(len(*buf)), b.row.Size-off)], off)
			if n == 0 {
				b.damage = b.readError(err)
				return
			}
			sum = crc32.Update(sum, castagnoli, (*buf)[:n])
			off += int64(n)
		}
		b.damage = b.judge(sum)
	})
	return b.damage
}

// judge compares a CRC of the whole with the row's.
func (b *Blob) judge(sum uint32) error {
	if sum == b.row.CRC {
		return nil
	}
	return fmt.Errorf("reference %s in %s: %w", b.id, b.watch.dir, &damageError{
		fmt.Errorf("%w: file %s has CRC-32C %08x, its row says %08x", storage.ErrCorrupted, b.row.Path, sum, b.row.CRC),
		storage.FindingChecksum, b.row,
	})
}

// readError is an error of the file, or its end before the end of the blob.
func (b *Blob) readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = &damageError{
			fmt.Errorf("%w: file %s ends before its %d bytes", storage.ErrCorrupted, b.row.Path, b.row.Size),
			storage.FindingSize, b.row,
		}
	}
	return fmt.Errorf("reference %s in %s: %w", b.id, b.watch.dir, storage.Classify(err))
}

// tell tells of damage, once, and returns it.
func (b *Blob) tell(err error) error {
	if errors.Is(err, storage.ErrCorrupted) && b.told.CompareAndSwap(false, true) {
		b.watch.unreadable(b.reading, b.id, err)
	}
	return err
}
