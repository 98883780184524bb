package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"mime"
	"os"
	"strings"
	"syscall"

	"github.com/gabriel-vasile/mimetype"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// inlineLimit is up to how many bytes a stream is held in memory, so that a
// duplicate writes no file.
const inlineLimit = 1 << 20

// payload is the content of one Store with what there is to know of it. The
// bytes are in data, or in a spool where they are more than inlineLimit.
type payload struct {
	data   []byte
	spool  string
	buffer *[]byte // what data is in, to go back to buffers
	head   []byte  // the first bytes, for sniffing
	size   int64
	crc    uint32 // of a spool
	digest storage.Digest
	count  int64 // of the reference, where it stands for several, otherwise 0

	ticket *ticket
	// refused is why the bytes of a stream are not there: a limit leaves them no
	// room. They may be in the store already.
	refused error
}

func (p *payload) free() {
	freeBuffer(p.buffer)
	p.buffer, p.data, p.head = nil, nil, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// inMemory is the payload of bytes that are all there.
func (s *store) inMemory(data []byte, buffer *[]byte) *payload {
	return &payload{data: data, buffer: buffer, head: data, size: int64(len(data)), digest: s.sums.Sum(data)}
}

// fromData is the payload of a MediaContent's Data, and the MIME type that a
// data: URL declares.
func (s *store) fromData(data string) (*payload, string, error) {
	// White space and padding make up less than this for any sensible input.
	if limit := s.cfg.MaxFileSize; limit > 0 && int64(len(data))/4 > limit+1024 {
		return nil, "", tooLarge(limit)
	}
	var buffer *[]byte
	decoded, mimeType, err := decodeData(data, func(n int) []byte {
		buffer = newBuffer(n)
		return *buffer
	})
	if err == nil && s.cfg.MaxFileSize > 0 && int64(len(decoded)) > s.cfg.MaxFileSize {
		err = tooLarge(s.cfg.MaxFileSize)
	}
	if err != nil {
		freeBuffer(buffer)
		return nil, "", err
	}
	return s.inMemory(decoded, buffer), mimeType, nil
}

func tooLarge(limit int64) error {
	return fmt.Errorf("%w: more than %d bytes, the store's MaxFileSize", storage.ErrTooLarge, limit)
}

// fromFile is the payload of a file of the caller's.
func (s *store) fromFile(ctx context.Context, name string, t *ticket) (*payload, error) {
	// A pipe must not block the opening.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", storage.ErrInvalidMedia, err)
	} else if err != nil {
		return nil, storage.Classify(err)
	}
	defer func() { _ = f.Close() }() // was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, storage.Classify(err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: file %s is no regular file but %s", storage.ErrInvalidMedia, name, info.Mode().Type())
	case s.cfg.MaxFileSize > 0 && info.Size() > s.cfg.MaxFileSize:
		return nil, fmt.Errorf("file %s of %d bytes: %w", name, info.Size(), tooLarge(s.cfg.MaxFileSize))
	}
	p, err := s.fromReader(ctx, f, info.Size(), t)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", name, err)
	}
	return p, nil
}

// fromReader is the payload of a stream, in constant memory. size is how many
// bytes it will have, if that is known, otherwise 0; it saves copying, and tells the
// limits beforehand.
func (s *store) fromReader(ctx context.Context, r io.Reader, size int64, t *ticket) (*payload, error) {
	if s.cfg.MaxFileSize == 0 || size <= s.cfg.MaxFileSize {
		if data, ok := unread(r); ok {
			return s.fromMemory(ctx, data, t)
		}
	}
	r = &limitedReader{ctx: ctx, r: r, limit: s.cfg.MaxFileSize}
	// One byte more than there is shows that there is no more.
	head, buffer, err := readHead(r, int(min(size, inlineLimit))+1)
	if err != nil {
		return nil, err
	}
	if len(head) <= inlineLimit {
		return s.inMemory(head, buffer), nil
	}
	p := &payload{buffer: buffer, head: head, ticket: t}
	if err := s.spool(ctx, p, io.MultiReader(bytes.NewReader(head), r), max(size, int64(len(head)))); err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

// fromMemory is the payload of bytes that the caller has lent. Those that are more than
// inlineLimit are hashed while they are written.
func (s *store) fromMemory(ctx context.Context, data []byte, t *ticket) (*payload, error) {
	if len(data) <= inlineLimit {
		return s.inMemory(data, nil), nil
	}
	p := &payload{head: data[:inlineLimit], ticket: t}
	rest := lent(data)
	return p, s.spool(ctx, p, &rest, int64(len(data)))
}

// spool puts what r reads, size bytes or more, into the spool of a payload, or only
// hashes it (see payload.refused).
func (s *store) spool(ctx context.Context, p *payload, r io.Reader, size int64) error {
	in := &hashingReader{r: r, sha: sha256.New()}
	if err := s.spoolHashed(ctx, p, in, size); err != nil {
		return err
	}
	p.size, p.crc = in.size, in.crc
	in.sha.Sum(p.digest[:0])
	return nil
}

func (s *store) spoolHashed(ctx context.Context, p *payload, in *hashingReader, size int64) error {
	id, err := s.mint.next()
	if err != nil {
		return err
	}
	if p.ticket == nil {
		p.spool, err = s.blobs.Spool(ctx, id, in)
		return err
	}
	if err = p.ticket.allows(ctx, size, size); err == nil {
		m := &metered{ctx: ctx, t: p.ticket, r: in}
		p.spool, err = s.blobs.Spool(ctx, id, m)
		m.done()
	}
	if err != nil {
		return s.hashOn(ctx, p, in, size, err)
	}
	return nil
}

// readHead reads to the end, or one byte more than inlineLimit, into a buffer
// that has room for hint bytes at first.
func readHead(r io.Reader, hint int) (head []byte, buffer *[]byte, err error) {
	buffer = newBuffer(hint)
	n := 0
	for {
		room := (*buffer)[:min(len(*buffer), inlineLimit+1)]
		read, err := io.ReadFull(r, room[n:])
		n += read
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && n == inlineLimit+1:
			return room[:n], buffer, nil
		case err != nil:
			freeBuffer(buffer)
			return nil, nil, err
		}
		grown := newBuffer(4 * len(*buffer))
		copy(*grown, room)
		freeBuffer(buffer)
		buffer = grown
	}
}

// unread is what is left of a stream that is in memory, without a copy of it.
// The caller has lent it until the call returns.
func unread(r io.Reader) ([]byte, bool) {
	switch r := r.(type) {
	case *bytes.Buffer:
		return r.Next(r.Len()), true
	case *bytes.Reader:
		var data lent
		_, err := r.WriteTo(&data)
		return data, err == nil
	}
	return nil, false
}

// lent are bytes of the caller's. It keeps what is written to it in one piece, as
// bytes.Reader does, without a copy, and gives it again without one.
type lent []byte

func (l *lent) Write(p []byte) (int, error) {
	*l = p
	return len(p), nil
}

// Next is that of a blobs.Lender.
func (l *lent) Next(buf []byte) ([]byte, error) {
	n := min(len(buf), len(*l))
	if n == 0 {
		return nil, io.EOF
	}
	p := (*l)[:n]
	*l = (*l)[n:]
	return p, nil
}

func (l *lent) Read(p []byte) (int, error) {
	next, err := l.Next(p)
	return copy(p, next), err
}

// knownSize is how many bytes a stream has left, if it can tell, otherwise 0.
func knownSize(r io.Reader) int64 {
	if r, ok := r.(interface{ Len() int }); ok {
		return int64(r.Len())
	}
	return 0
}

// limitedReader fails with ErrTooLarge past limit bytes, if limit is positive,
// and with ctx's error once ctx has ended. Errors of the stream are marked as
// such, since they are not the store's.
type limitedReader struct {
	ctx   context.Context
	r     io.Reader
	limit int64
	n     int64
	err   error // of the stream: it stays, for a reader may drop one that comes with bytes
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	l.n += int64(n)
	switch {
	case l.limit > 0 && l.n > l.limit:
		n, l.err = 0, tooLarge(l.limit)
	case err == io.EOF:
		l.err = err
	case err != nil:
		l.err = fmt.Errorf("%w: reading the content: %w", storage.ErrInvalidMedia, err)
	}
	return n, l.err
}

// hashingReader hashes what passes through it.
type hashingReader struct {
	r    io.Reader
	sha  hash.Hash
	crc  uint32
	size int64
}

func (h *hashingReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.take(p[:n])
	return n, err
}

// Next is blobs.Next of the stream.
func (h *hashingReader) Next(buf []byte) ([]byte, error) {
	p, err := blobs.Next(h.r, buf)
	h.take(p)
	return p, err
}

func (h *hashingReader) take(p []byte) {
	_, _ = h.sha.Write(p) // is documented to never fail
	h.crc = crc32.Update(h.crc, castagnoli, p)
	h.size += int64(len(p))
}

// describe settles type and MIME type: what was declared wins, then the MIME
// type is sniffed, and the type is taken from it.
func describe(declared storage.MediaInfo, head []byte) (storage.MediaInfo, error) {
	info := declared
	if err := info.Validate(); err != nil {
		return info, err
	}
	if info.MimeType == "" {
		info.MimeType = mimetype.Detect(head).String()
	} else if _, _, err := mime.ParseMediaType(info.MimeType); err != nil {
		return info, fmt.Errorf("%w: MIME type %q: %w", storage.ErrInvalidMedia, info.MimeType, err)
	}
	if info.Type == "" {
		major, _, _ := strings.Cut(info.MimeType, "/")
		switch major = strings.ToLower(strings.TrimSpace(major)); major {
		case "image", "audio", "video":
			info.Type = major
		default:
			info.Type = "document"
		}
	}
	return info, nil
}
