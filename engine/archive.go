package engine

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// An archive is a tar stream in PAX format, without seeking on either side:
//
//	mediabolt.json           archiveHeader
//	<path>                   the bytes of a blob, named as in the tree of the store
//	<path>.meta              its sidecar (blobs/sidecar.go) with the references that were
//	                         exported: each line holds all of a row
//	…
//	mediabolt-end.json       archiveEnd
//
// The modification time of a blob's entry is when its bytes were first stored, the
// access time (a PAX record) when they were last read, if ever. Bytes without a
// sidecar behind them were found to be damaged while they were written, and count
// for nothing. Unpacked by tar, an archive is a tree of blobs and sidecars.
const (
	archiveFirst = "mediabolt.json"
	archiveLast  = "mediabolt-end.json"
)

// archiveVersion is the Version of every archiveHeader.
const archiveVersion = 1

type archiveHeader struct {
	Format       string                   `json:"format"` // archiveFormat
	Version      int                      `json:"version"`
	Store        string                   `json:"store,omitempty"` // its UUID, where the index has one
	Organization storage.OrganizationMode `json:"organization"`
	CreatedAt    time.Time                `json:"created_at"` // of the archive
}

// archiveFormat is the Format of every archiveHeader.
const archiveFormat = "mediabolt export"

// archiveEnd tells what is in an archive, so that one that was cut short is noticed.
type archiveEnd struct {
	Blobs      int64             `json:"blobs"`
	References int64             `json:"references"`
	Bytes      int64             `json:"bytes"` // of the blobs
	LeftOut    []storage.Finding `json:"left_out,omitempty"`
}

// maxArchiveJSON bounds mediabolt.json, in bytes, and maxArchiveMeta a sidecar and
// mediabolt-end.json, as many as a sidecar in a store may have.
const (
	maxArchiveJSON = 64 << 10
	maxArchiveMeta = 1 << 30
)

// archiveMode is the mode of every entry.
const archiveMode fs.FileMode = 0o600

// archiveEntry is the tar header of a file.
func archiveEntry(name string, size int64, modified, accessed time.Time) *tar.Header {
	return &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(archiveMode),
		ModTime: modified, AccessTime: accessed, Format: tar.FormatPAX,
	}
}

// writeArchiveJSON writes an entry of one value.
func writeArchiveJSON(w *tar.Writer, name string, at time.Time, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(archiveEntry(name, int64(len(data))+1, at, time.Time{})); err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// archiveReader reads an archive, and says of its errors where they occurred.
type archiveReader struct {
	tar  *tar.Reader
	name string // of the entry that is being read
	err  error  // of the stream
}

func newArchiveReader(r io.Reader) *archiveReader {
	return &archiveReader{tar: tar.NewReader(r)}
}

// next is the header of the next entry, or io.EOF behind the last.
func (r *archiveReader) next() (*tar.Header, error) {
	header, err := r.tar.Next()
	switch {
	case err == io.EOF:
		return nil, err
	case err != nil && r.name == "":
		return nil, r.fault(fmt.Errorf("at its beginning: %w", err))
	case err != nil:
		return nil, r.fault(fmt.Errorf("behind %q: %w", r.name, err))
	}
	r.name = header.Name
	if header.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("%w: archive entry %q is no file but of type %q", storage.ErrCorrupted, r.name, header.Typeflag)
	}
	return header, nil
}

// Read reads the entry.
func (r *archiveReader) Read(p []byte) (int, error) {
	n, err := r.tar.Read(p)
	if err != nil && err != io.EOF {
		err = r.fault(fmt.Errorf("in %q: %w", r.name, err))
		r.err = err
	}
	return n, err
}

// fault says what an error of the stream means. Those that are not about its bytes
// stay what they are.
func (r *archiveReader) fault(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("%w: archive is cut short or damaged %w: import a whole copy of it; what was imported stays", storage.ErrCorrupted, err)
	}
	return storage.Classify(fmt.Errorf("read archive %w", err))
}

// small reads an entry of up to limit bytes.
func (r *archiveReader) small(header *tar.Header, limit int64) ([]byte, error) {
	if header.Size > limit {
		return nil, fmt.Errorf("%w: archive entry %q has %d bytes, at most %d make sense", storage.ErrCorrupted, r.name, header.Size, limit)
	}
	return io.ReadAll(r)
}

// json reads an entry of one value.
func (r *archiveReader) json(header *tar.Header, limit int64, v any) error {
	data, err := r.small(header, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: archive entry %q: %w", storage.ErrCorrupted, r.name, err)
	}
	return nil
}

// begin reads the first entry.
func (r *archiveReader) begin() (archiveHeader, error) {
	var head archiveHeader
	header, err := r.next()
	switch {
	case err == io.EOF:
		return head, fmt.Errorf("%w: the archive is empty: want a first entry %q, as 'export' writes it", storage.ErrCorrupted, archiveFirst)
	case err != nil:
		return head, err
	case header.Name != archiveFirst:
		return head, fmt.Errorf("%w: not an archive of mediabolt: its first entry is %q, want %q", storage.ErrCorrupted, header.Name, archiveFirst)
	}
	if err := r.json(header, maxArchiveJSON, &head); err != nil {
		return head, err
	}
	if head.Format != archiveFormat {
		return head, fmt.Errorf("%w: archive entry %q has format %q, want %q", storage.ErrCorrupted, archiveFirst, head.Format, archiveFormat)
	}
	if head.Version != archiveVersion {
		return head, fmt.Errorf("%w: archive version %d, this program knows %d", storage.ErrVersion, head.Version, archiveVersion)
	}
	return head, nil
}

// sidecar reads the entry behind a blob: its row and its references.
func (r *archiveReader) sidecar(header *tar.Header, path string) (storage.BlobRow, []storage.RefRow, error) {
	data, err := r.small(header, maxArchiveMeta)
	if err != nil {
		return storage.BlobRow{}, nil, err
	}
	damaged := func(format string, args ...any) (storage.BlobRow, []storage.RefRow, error) {
		return storage.BlobRow{}, nil, fmt.Errorf("%w: archive entry %q: %w", storage.ErrCorrupted, r.name, fmt.Errorf(format, args...))
	}
	sidecar := blobs.DecodeSidecar(data)
	blob := sidecar.Blob
	blob.Path = path
	switch {
	case sidecar.Damaged > 0:
		return damaged("%d lines cannot be read: %w", sidecar.Damaged, sidecar.Cause)
	case blob.Key == "":
		return damaged("no line tells of the blob")
	}
	refs := make([]storage.RefRow, len(sidecar.Lines))
	for i, line := range sidecar.Lines {
		if line.Ref == nil {
			return damaged("line %d is no reference", i+1)
		}
		refs[i] = *line.Ref
		refs[i].Blob = blob.Key
	}
	return blob, refs, nil
}
