package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// Exported is what an Export has written.
type Exported struct {
	References int64
	Blobs      int64
	Bytes      int64 // of the blobs
	// LeftOut are blobs that are damaged in the store. They are not in the
	// archive, nor are their references.
	LeftOut []storage.Finding
}

// Export writes the references that a query lists, with their blobs, as a tar
// archive (archive.go) that Import reads on any machine: it does not depend on the
// index or the byte order. It is streamed, so w may be a pipe. A Limit or Cursor is
// ErrInvalidQuery, for it could part the references of one blob.
//
// Every blob is verified as it is read, and comes with those of its references
// that stand at that moment. What is stored or deleted meanwhile may or may not be
// in the archive, as with List. Damaged blobs are left out; the archive is whole
// then all the same, and Export ends with ErrCorrupted. Other errors end it in
// the middle, which Import notices: w's, ErrInvalidQuery, ErrPermission, ErrIO,
// ErrClosed, or ctx's. Memory is in proportion to the references of one blob.
//
// progress is told of how many references of about how many it is done with, which
// costs a list of them beforehand. It must not take long.
func (f *FileStore) Export(ctx context.Context, w io.Writer, q Query, progress ...func(done, total int64)) (Exported, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Exported{}, err
	}
	defer leave()
	e := &export{ctx: ctx, f: f, s: s, out: &archiveOutput{w: w}, query: q, progress: progress}
	e.tar = tar.NewWriter(e.out)
	if err := e.run(); err != nil {
		return e.done, fmt.Errorf("export %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return e.done, leftOut("export", s.cfg.BaseDir, e.done.LeftOut)
}

// leftOut is the error of a whole that lacks what was damaged, if anything was.
func leftOut(what, dir string, findings []storage.Finding) error {
	switch len(findings) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s %s: %w: %s is left out: %s", what, dir, storage.ErrCorrupted, findings[0].Path, findings[0].Detail)
	}
	return fmt.Errorf("%s %s: %w: %d blobs are left out; the first is %s: %s",
		what, dir, storage.ErrCorrupted, len(findings), findings[0].Path, findings[0].Detail)
}

// export is an Export under way.
type export struct {
	ctx   context.Context
	f     *FileStore
	s     *store
	out   *archiveOutput
	tar   *tar.Writer
	query Query
	done  Exported

	progress []func(done, total int64)
}

// archiveOutput marks errors of the caller's writer as such.
type archiveOutput struct{ w io.Writer }

func (o *archiveOutput) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		err = fmt.Errorf("write archive: %w", err)
	}
	return n, err
}

func (e *export) run() error {
	if e.query.Limit != 0 || e.query.Cursor != "" {
		return fmt.Errorf("%w: an export has neither limit nor cursor", storage.ErrInvalidQuery)
	}
	begun := now()
	head := archiveHeader{
		Format: archiveFormat, Version: archiveVersion, Store: e.s.storeID(),
		Organization: e.s.cfg.Organization, CreatedAt: begun,
	}
	if err := e.query.validate(); err != nil {
		return err
	}
	if err := writeArchiveJSON(e.tar, archiveFirst, begun, head); err != nil {
		return err
	}
	total, err := e.count()
	if err != nil {
		return err
	}
	passed := int64(0)
	for pair, err := range e.f.pairs(e.ctx, &e.query) {
		if err != nil {
			return err
		}
		if err := e.pair(&pair); err != nil {
			return err
		}
		passed++
		for _, tell := range e.progress {
			tell(passed, max(passed, total))
		}
	}
	end := archiveEnd{Blobs: e.done.Blobs, References: e.done.References, Bytes: e.done.Bytes, LeftOut: e.done.LeftOut}
	if err := writeArchiveJSON(e.tar, archiveLast, now(), end); err != nil {
		return err
	}
	return e.tar.Close()
}

// count counts the references, where somebody wants to know.
func (e *export) count() (total int64, err error) {
	if len(e.progress) == 0 {
		return 0, nil
	}
	for _, err := range e.f.pairs(e.ctx, &e.query) {
		if err != nil {
			return 0, err
		}
		total++
	}
	return total, nil
}

// storeID is the UUID of the store, empty where the index has none.
func (s *store) storeID() string {
	if id := s.cuts.StoreID(); id != uuid.Nil {
		return id.String()
	}
	return ""
}

// pair exports the blob of a listed reference, with the first that is listed of
// those that share it.
func (e *export) pair(p *storage.RefPair) error {
	refs := []storage.RefRow{p.Ref}
	if p.Blob.Refs > 1 {
		first, err := e.first(p)
		if err != nil || !first {
			return err
		}
		refs = refs[:0]
		for other, err := range e.sharing(p, 0) {
			if err != nil {
				return err
			}
			if other.Blob.Key == p.Blob.Key {
				refs = append(refs, other.Ref)
			}
		}
		if len(refs) == 0 {
			return nil // deleted meanwhile
		}
	}
	return e.blob(&p.Blob, refs)
}

// first says whether no other reference to the blob comes before p in the list.
func (e *export) first(p *storage.RefPair) (bool, error) {
	// Blobs of their own with the same bytes are listed too, seldom: then there
	// may be many to pass.
	for _, limit := range [...]int{1, 0} {
		for other, err := range e.sharing(p, limit) {
			if err != nil {
				return false, err
			}
			if other.Blob.Key == p.Blob.Key {
				return other.Ref.UUID == p.Ref.UUID, nil
			}
		}
	}
	return false, nil
}

// sharing lists what the query lists of the references to the same bytes.
func (e *export) sharing(p *storage.RefPair, limit int) func(func(storage.RefPair, error) bool) {
	q := e.query
	q.Digest, q.Limit = p.Blob.Digest, limit
	return e.f.pairs(e.ctx, &q)
}

// blob writes a blob and its sidecar.
func (e *export) blob(row *storage.BlobRow, refs []storage.RefRow) error {
	kind, detail, err := e.bytes(row)
	if err != nil {
		return err
	}
	if kind != "" {
		// What was deleted or moved meanwhile is no damage.
		if stands, err := e.s.stands(e.ctx, row); err != nil || !stands {
			return err
		}
		f := storage.Finding{Kind: kind, Severity: storage.SeverityDamage, Path: row.Path, Blob: row.Key.String(), Detail: detail}
		e.s.watch.found(&f)
		e.done.LeftOut = append(e.done.LeftOut, f)
		return nil
	}
	sidecar, err := blobs.EncodeSidecar(row, refs)
	if err != nil {
		return err
	}
	err = e.tar.WriteHeader(archiveEntry(row.Path+blobs.MetaSuffix, int64(len(sidecar)), row.CreatedAt, time.Time{}))
	if err == nil {
		_, err = e.tar.Write(sidecar)
	}
	e.done.Blobs++
	e.done.References += int64(len(refs))
	e.done.Bytes += row.Size
	return err
}

// bytes writes the entry of a blob's bytes, or says what is wrong with them. Of a
// small blob nothing is written then.
func (e *export) bytes(row *storage.BlobRow) (kind storage.FindingKind, detail string, err error) {
	file, size, err := e.s.blobs.Open(e.ctx, row.Key, row.Path)
	switch {
	case e.ctx.Err() != nil:
		return "", "", e.ctx.Err()
	case errors.Is(err, storage.ErrNotFound):
		return storage.FindingMissing, "the file is not there", nil
	case err != nil:
		return storage.FindingUnreadable, err.Error(), nil
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if size != row.Size {
		return storage.FindingSize, fmt.Sprintf("the file has %d bytes, its row says %d", size, row.Size), nil
	}
	header := archiveEntry(row.Path, size, row.CreatedAt, row.AccessedAt)
	in := &checkedReader{ctx: e.ctx, r: file, row: row}
	if size > inlineLimit {
		if err := e.tar.WriteHeader(header); err != nil {
			return "", "", err
		}
		return e.stream(in)
	}
	buffer := newBuffer(int(size))
	defer freeBuffer(buffer)
	data := (*buffer)[:size]
	if _, err := io.ReadFull(in, data); err != nil && e.ctx.Err() != nil {
		return "", "", e.ctx.Err()
	}
	if kind, detail := in.judge(); kind != "" {
		return kind, detail, nil
	}
	if err := e.tar.WriteHeader(header); err != nil {
		return "", "", err
	}
	_, err = e.tar.Write(data)
	return "", "", err
}

// stream writes bytes as they are read. Where they end too early, zeros make the
// entry as long as its header says.
func (e *export) stream(in *checkedReader) (storage.FindingKind, string, error) {
	buffer := newBuffer(0)
	defer freeBuffer(buffer)
	_, err := io.CopyBuffer(struct{ io.Writer }{e.tar}, in, *buffer)
	if err != nil && in.err == nil {
		return "", "", err // of the archive
	}
	if e.ctx.Err() != nil {
		return "", "", e.ctx.Err()
	}
	for left := in.row.Size - in.size; left > 0; {
		n, err := e.tar.Write(padding[:min(left, int64(len(padding)))])
		if err != nil {
			return "", "", err
		}
		left -= int64(n)
	}
	kind, detail := in.judge()
	return kind, detail, nil
}

// padding is zeros.
var padding = bytes.Repeat([]byte{0}, 64<<10)

// checkedReader reads the bytes of a row, no more than there should be, and judges
// them in the end.
type checkedReader struct {
	ctx  context.Context
	r    io.Reader
	row  *storage.BlobRow
	size int64
	crc  uint32
	err  error // that ended the reading, other than io.EOF
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	if left := c.row.Size - c.size; int64(len(p)) > left {
		p = p[:left]
	}
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	c.crc = crc32.Update(c.crc, castagnoli, p[:n])
	c.size += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// judge says what is wrong with what was read.
func (c *checkedReader) judge() (storage.FindingKind, string) {
	switch {
	case c.err != nil:
		return storage.FindingUnreadable, storage.Classify(c.err).Error()
	case c.size != c.row.Size:
		return storage.FindingSize, fmt.Sprintf("the file has %d bytes, its row says %d", c.size, c.row.Size)
	case c.crc != c.row.CRC:
		return storage.FindingChecksum, fmt.Sprintf("CRC-32C %08x, its row says %08x", c.crc, c.row.CRC)
	}
	return "", ""
}
