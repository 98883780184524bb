package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// rebuildWorkers is how many blobs are looked at and added at a time: enough for
// a group of commits.
const rebuildWorkers = 64

// sniffed is how many bytes a MIME type is told from: what mimetype looks at.
const sniffed = 3072

// restored is what there is to know of one blob.
type restored struct {
	file storage.TreeFile
	row  storage.BlobRow
	refs []storage.RefRow // that are live
	// ended are references of which the sidecar still tells.
	ended []storage.UUID
	// told are the lines that the sidecar has for good.
	told    []storage.Mirror
	whole   bool // all of the sidecar is owed
	adopted int64
	from    int64 // references from the old index or its log
	// fault is what is wrong with the file of the blob, of a kind that is empty
	// where nothing is.
	fault  storage.FindingKind
	detail string
	odd    bool // the file is not there, or not of the size of the row
	poor   bool // the sidecar is missing, or lines of it are
}

// tree restores what the tree tells of: first the files of which a sidecar, the old
// index or its log does, for any other may be the second of such a blob.
func (r *rebuilding) tree(ctx context.Context) error {
	restore := func(ctx context.Context, file storage.TreeFile) error {
		if r.bareOnly && !r.isBare(ctx, &file) {
			return nil
		}
		if err := r.restoreFile(ctx, file); err != nil {
			return fmt.Errorf("blob %s: %w", file.Blob, err)
		}
		return r.s.faults.reach(ctx, faultRestored)
	}
	err := eachOf(ctx, rebuildWorkers, r.blobFiles(ctx), restore)
	if err != nil || !r.bare.Load() {
		return err
	}
	r.bareOnly = true
	return eachOf(ctx, rebuildWorkers, r.blobFiles(ctx), restore)
}

// isBare says whether nothing but a file itself tells of it.
func (r *rebuilding) isBare(ctx context.Context, file *storage.TreeFile) bool {
	if _, known := r.remains.blobAt(file.Blob); known {
		return false
	}
	side, err := r.s.blobs.ReadSidecar(ctx, file.Blob)
	return err != nil || side.Blob.Key == "" || !namedFor(side.Blob.Key, file.ID)
}

// blobFiles yields a file for every blob of the tree: its own or, where that is
// not there, its sidecar.
func (r *rebuilding) blobFiles(ctx context.Context) func(yield func(storage.TreeFile, error) bool) {
	return func(yield func(storage.TreeFile, error) bool) {
		last := ""
		for file, err := range r.s.blobs.Files(ctx) {
			switch {
			case err != nil:
				yield(file, err)
				return
			case !file.Ours && r.bareOnly:
				continue // counted
			case !file.Ours:
				r.mu.Lock()
				r.result.Foreign++
				r.mu.Unlock()
				continue
			case file.Sidecar && file.Blob == last:
				continue
			case file.Sidecar:
				if _, err := r.s.blobs.Size(ctx, file.Blob); !errors.Is(err, storage.ErrNotFound) {
					continue
				}
			default:
				last = file.Blob
			}
			if !yield(file, nil) {
				return
			}
		}
	}
}

// eachOf calls do for everything that a sequence yields, by as many goroutines as
// said, until one fails or the sequence does.
func eachOf[T any](ctx context.Context, workers int, seq func(func(T, error) bool), do func(context.Context, T) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	jobs := make(chan T)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for job := range jobs {
				if ctx.Err() != nil {
					continue
				}
				if err := do(ctx, job); err != nil {
					stop(err)
				}
			}
		})
	}
	for job, err := range seq {
		if err != nil {
			stop(err)
		}
		if ctx.Err() != nil {
			break
		}
		jobs <- job
	}
	close(jobs)
	group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// restoreFile restores the references of one blob.
func (r *rebuilding) restoreFile(ctx context.Context, file storage.TreeFile) error {
	if has(r.remains.unlinks, file.Blob) {
		return r.oweUnlink(ctx, &file)
	}
	if err := r.keep(ctx, &file); err != nil {
		return err
	}
	b, err := r.gather(ctx, file)
	if b == nil || err != nil {
		return err
	}
	if r.opts.Deep && b.fault == "" {
		if err := r.compare(ctx, b); err != nil {
			return err
		}
	}
	return r.restore(ctx, b)
}

// keepBatch is how many files are made durable at a time.
const keepBatch = 4096

// keep makes durable, with others, what the new index counts as there. Where the old one
// or its log tells what is owed, that stays owed; else a process that was killed may have
// left anything in the kernel's memory alone.
func (r *rebuilding) keep(ctx context.Context, file *storage.TreeFile) error {
	if r.remains.known {
		return nil
	}
	r.s.blobs.KeepSidecar(file.Blob)
	r.mu.Lock()
	r.kept++
	full := r.kept%keepBatch == 0
	r.mu.Unlock()
	if full {
		return r.s.blobs.Settle(ctx)
	}
	return nil
}

// gather finds out what sidecar, file, old index and path tell of a blob; nil where
// that is not enough for a row.
func (r *rebuilding) gather(ctx context.Context, file storage.TreeFile) (*restored, error) {
	side, err := r.sidecar(ctx, &file)
	if err != nil {
		return nil, err
	}
	old, known := r.remains.blobAt(file.Blob)
	b := &restored{file: file, whole: known && has(r.remains.whole, old.Key), poor: isPoor(&side)}
	if former, moved := r.remains.former[old.Key]; b.whole && moved && side.Blob.Key == "" {
		side = former
		side.Blob.Organization = old.Organization
		side.Lines = liveLines(side.Live()) // what ended did so at the former path
	}
	b.row = side.Blob
	if side.Blob.Key == "" && known {
		b.row = old
	}
	if b.row.Key == "" && !r.bareOnly {
		r.bare.Store(true)
		return nil, nil
	} else if b.row.Key == "" {
		if err := r.inspect(ctx, b); b.fault != "" || err != nil {
			return nil, err
		}
	} else if err := r.measure(ctx, b); err != nil {
		return nil, err
	}
	b.row.Path, b.row.Refs = file.Blob, 0
	r.fillIn(ctx, b, known, &old)
	r.collect(b, &side)
	if err := r.adopt(ctx, b, &side); err != nil {
		return nil, err
	}
	return b, nil
}

func liveLines(live map[storage.UUID]*storage.RefRow) (lines []storage.SidecarLine) {
	for _, ref := range live {
		lines = append(lines, storage.SidecarLine{Ref: ref})
	}
	return lines
}

// sidecar reads the sidecar of a blob. What is wrong with it is reported, and left
// out.
func (r *rebuilding) sidecar(ctx context.Context, file *storage.TreeFile) (storage.Sidecar, error) {
	side, err := r.s.blobs.ReadSidecar(ctx, file.Blob)
	finding := storage.Finding{Kind: storage.FindingSidecar, Path: file.Blob + ".meta", Blob: side.Blob.Key.String()}
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return side, nil
	case errors.Is(err, storage.ErrCorrupted), errors.Is(err, storage.ErrIO) && ctx.Err() == nil:
		finding.Detail = "it cannot be read, so that references that only it tells of are lost: " + err.Error()
		side = storage.Sidecar{}
	case err != nil:
		return side, err
	case !namedFor(side.Blob.Key, file.ID):
		finding.Detail = fmt.Sprintf("it tells of blob %s, which cannot be the one that it lies beside: it is not used", side.Blob.Key)
		side = storage.Sidecar{}
	case side.Damaged > 0:
		finding.Detail = fmt.Sprintf("%d of its lines cannot be read, so that references that only they tell of are lost, and ends that only they tell of are not known: %v",
			side.Damaged, side.Cause)
	default:
		return side, nil
	}
	if r.bareOnly || !r.isBare(ctx, file) { // what is bare is looked at again
		r.report(finding)
	}
	return side, nil
}

// namedFor says whether a file of this ID can be that of a blob. The empty key is
// any.
func namedFor(key storage.BlobKey, id storage.ID) bool {
	if own, is := key.UUID(); is {
		return own == id.UUID
	}
	// The digest follows the kind, within scopes too.
	return key == "" || key[1:1+len(id.Hash)] == storage.BlobKey(id.Hash[:])
}

// measure compares the file of a blob with the size that its row has.
func (r *rebuilding) measure(ctx context.Context, b *restored) error {
	size, err := r.s.blobs.Size(ctx, b.file.Blob)
	b.odd = err != nil || size != b.row.Size
	switch {
	case errors.Is(err, storage.ErrNotFound):
		if r.isStaged(b.row.Key, b.row.Size) {
			return nil // the next opening publishes it
		}
		b.fault, b.detail = storage.FindingMissing, "the file is not there; store the same bytes again to heal it, or restore it"
	case errors.Is(err, storage.ErrCorrupted):
		b.fault, b.detail = storage.FindingUnreadable, err.Error()
	case err != nil:
		return err
	case size != b.row.Size:
		b.fault = storage.FindingSize
		b.detail = fmt.Sprintf("the file has %d bytes, its sidecar says %d; store the same bytes again to heal it, or restore it", size, b.row.Size)
	}
	return nil
}

// inspect makes the row of a blob of which nothing but the file tells. Its key is
// its own, unless it is still staged under another.
func (r *rebuilding) inspect(ctx context.Context, b *restored) error {
	key := storage.UUIDKey(b.file.ID.UUID)
	read, head, err := r.read(ctx, key, b.file.Blob)
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupted), errors.Is(err, storage.ErrIO):
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.fault = storage.FindingUnreadable
		r.leave(b.file.Path, !b.file.Sidecar, storage.Finding{Kind: b.fault,
			Detail: "neither its sidecar nor its bytes tell what it is, so that no reference to it can be made; it is left alone: " + err.Error()})
		return nil
	case err != nil:
		return err
	}
	if key, err = r.stagedKey(ctx, b.file.Blob, read.size, key); err != nil {
		return err
	}
	info, err := describe(storage.MediaInfo{}, head)
	if err != nil {
		return err
	}
	b.row = storage.BlobRow{
		Key: key, Size: read.size, CRC: read.crc, MimeType: info.MimeType, CreatedAt: b.file.ID.UUID.Time().Truncate(time.Microsecond),
	}
	read.sha.Sum(b.row.Digest[:0])
	return r.leaveTwin(ctx, b)
}

// leaveTwin leaves a file alone that is the second one of a blob, as a move has left it
// that did not come to the sidecar.
func (r *rebuilding) leaveTwin(ctx context.Context, b *restored) error {
	_, row, err := r.s.index.Ref(ctx, b.file.ID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	case row.Key == b.row.Key || row.Size != b.row.Size || row.CRC != b.row.CRC:
		return nil
	}
	b.fault = storage.FindingOrphan
	r.leave(b.file.Path, true, storage.Finding{Kind: b.fault, Blob: row.Key.String(), Detail: fmt.Sprintf(secondFile, row.Path)})
	return nil
}

// read hashes a file, and returns its first bytes too.
func (r *rebuilding) read(ctx context.Context, key storage.BlobKey, name string) (*hashingReader, []byte, error) {
	f, _, err := r.s.blobs.Open(ctx, key, name)
	if err != nil {
		return nil, nil, err
	}
	read, head, err := hashAll(ctx, f)
	return read, head, storage.Classify(errors.Join(err, f.Close()))
}

func hashAll(ctx context.Context, from io.Reader) (*hashingReader, []byte, error) {
	in := &hashingReader{r: contextReader{ctx, from}, sha: sha256.New()}
	head := make([]byte, sniffed)
	n, err := io.ReadFull(in, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return in, head[:n], nil
	} else if err != nil {
		return nil, nil, err
	}
	buf := newBuffer(0)
	defer freeBuffer(buf)
	// The wrapper hides the method by which the copy would bypass the buffer.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, in, *buf)
	return in, head, err
}

// stagedKey is the key under which the very file at a path is still staged, or else
// own.
func (r *rebuilding) stagedKey(ctx context.Context, path string, size int64, own storage.BlobKey) (storage.BlobKey, error) {
	for _, s := range r.inStaging {
		if s.Key == "" || s.Size != size {
			continue
		}
		same, err := r.s.blobs.Linked(ctx, s.Key, path)
		if same {
			return s.Key, nil
		} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return own, err
		}
	}
	return own, nil
}

// isStaged says whether bytes of that size are staged under a key.
func (r *rebuilding) isStaged(key storage.BlobKey, size int64) bool {
	return slices.ContainsFunc(r.inStaging, func(s storage.StagedFile) bool { return s.Key == key && s.Size == size })
}

// fillIn takes what the sidecar does not have from the old index, and from the
// path.
func (r *rebuilding) fillIn(ctx context.Context, b *restored, known bool, old *storage.BlobRow) {
	mode, _, _ := fromPath(b.file.Blob)
	if b.row.Organization.Validate() != nil {
		b.row.Organization = mode
	}
	if !known && r.old != nil {
		row, err := r.old.Blob(ctx, b.row.Key)
		known, old = err == nil, &row
	}
	if known && old.Path == b.row.Path {
		b.row.AccessedAt = old.AccessedAt
	}
}

// collect takes the references from the sidecar, and what it lacks from the old
// index or its log.
func (r *rebuilding) collect(b *restored, side *storage.Sidecar) {
	key := b.row.Key
	live := side.Live()
	ended := map[storage.UUID]struct{}{}
	for i := range side.Lines {
		if l := &side.Lines[i]; l.Ref == nil {
			ended[l.Deleted] = struct{}{}
		}
	}
	for id := range live {
		if has(r.remains.ended, id) {
			ended[id] = struct{}{}
			delete(live, id)
		}
	}
	if row, known := r.remains.blobs[key]; !known || row.Path == b.file.Blob {
		for _, ref := range r.remains.refs[key] {
			if has(ended, ref.UUID) {
				continue
			}
			if told := live[ref.UUID]; told == nil || told.Revision < ref.Revision {
				b.from++
				live[ref.UUID] = &ref
			}
		}
	}
	for _, ref := range live {
		ref.Blob = key
		b.refs = append(b.refs, *ref)
	}
	for i := range side.Lines {
		if ref := side.Lines[i].Ref; ref != nil && has(ended, ref.UUID) {
			b.ended = append(b.ended, ref.UUID)
			delete(ended, ref.UUID) // it may have several lines
		}
	}
	slices.SortFunc(b.refs, func(x, y storage.RefRow) int { return bytes.Compare(x.UUID[:], y.UUID[:]) })
	b.told = r.told(b, side)
	if _, known := r.remains.blobs[key]; known {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[key] = struct{}{}
	}
}

// told are the lines that a sidecar has and is not owed: those that may not be
// durable stay owed, and so do all where no line tells of the blob.
func (r *rebuilding) told(b *restored, side *storage.Sidecar) (told []storage.Mirror) {
	if side.Blob.Key == "" && !b.whole {
		return nil
	}
	for i := range b.refs {
		m := storage.Mirror{UUID: b.refs[i].UUID, Revision: b.refs[i].Revision, Blob: b.row.Key}
		if b.whole || side.Line(&m) != nil && !has(r.remains.lines, m.UUID) {
			told = append(told, m)
		}
	}
	for _, id := range b.ended {
		m := storage.Mirror{UUID: id, Deleted: true, Blob: b.row.Key}
		if b.whole || side.Line(&m) != nil && !has(r.remains.tombstones, id) {
			told = append(told, m)
		}
	}
	return told
}

// adopt gives a blob the reference that its file is named after, if nothing tells
// of any, or if the line may have been lost that told of that one.
func (r *rebuilding) adopt(ctx context.Context, b *restored, side *storage.Sidecar) error {
	id := b.file.ID.UUID
	ended := has(r.remains.ended, id) || side.Line(&storage.Mirror{UUID: id, Deleted: true}) != nil
	_, row, err := r.s.index.Ref(ctx, b.file.ID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	taken := err == nil && row.Key != b.row.Key
	known := slices.ContainsFunc(b.refs, func(ref storage.RefRow) bool { return ref.UUID == id })
	lost := side.Blob.Key == "" && side.Damaged > 0 && !ended && !known
	if len(b.refs) > 0 && !lost {
		return nil
	}
	if ended || taken { // that one is not to come back, or is another's
		fresh, err := r.s.mint.next()
		if err != nil {
			return err
		}
		id = fresh
	}
	mode, m, odd := fromPath(b.file.Blob)
	m.CreatedAt = id.Time().Truncate(time.Microsecond)
	info, err := describe(storage.MediaInfo{MimeType: b.row.MimeType}, nil)
	if err != nil {
		return err
	}
	b.refs = append(b.refs, storage.RefRow{UUID: id, Blob: b.row.Key, Type: info.Type, MimeType: info.MimeType, Metadata: m})
	b.adopted++
	detail := "nothing but the file tells of it: adopted as one reference, " + string(mode)
	if odd != "" {
		detail += "; the ID that directory " + odd + " stands for cannot be told from its name"
	}
	r.report(storage.Finding{Kind: storage.FindingAdopted, Severity: storage.SeverityNotice, Path: b.file.Blob, Blob: b.row.Key.String(),
		Ref: id.String(), Detail: detail})
	return nil
}

// fromPath is what the path of a blob tells: the mode that it was stored by, and the
// IDs of its directories. odd is a directory from which no ID can be told.
func fromPath(name string) (mode storage.OrganizationMode, m storage.MediaMetadata, odd string) {
	dirs := strings.Split(path.Dir(name), "/")
	if dirs[0] == "." {
		dirs = nil
	}
	mode = storage.OrganizationFlat
	for _, candidate := range storage.OrganizationModes() {
		if len(blobs.Levels(candidate)) == len(dirs) {
			mode = candidate
		}
	}
	for i, kind := range blobs.Levels(mode) {
		id, _, ok := blobs.ElementID(kind, dirs[i])
		if !ok {
			odd = dirs[i]
			continue
		}
		switch kind {
		case storage.ConversationIDs:
			m.ConversationID = id
		case storage.SessionIDs:
			m.SessionID = id
		case storage.RunIDs:
			m.RunID = id
		}
	}
	return mode, m, odd
}

// compare reads a blob and compares it with its row.
func (r *rebuilding) compare(ctx context.Context, b *restored) error {
	read, _, err := r.read(ctx, b.row.Key, b.file.Blob)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		b.fault, b.detail = storage.FindingUnreadable, err.Error()
		return nil
	}
	var digest storage.Digest
	read.sha.Sum(digest[:0])
	switch {
	case read.crc != b.row.CRC:
		b.fault = storage.FindingChecksum
		b.detail = fmt.Sprintf("CRC-32C %08x, its sidecar says %08x; restore the file from a backup", read.crc, b.row.CRC)
	case !b.row.Digest.IsZero() && digest != b.row.Digest:
		b.fault = storage.FindingChecksum
		b.detail = fmt.Sprintf("SHA-256 %s, its sidecar says %s; restore the file from a backup", digest, b.row.Digest)
	}
	return nil
}

// contextReader ends a read with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
