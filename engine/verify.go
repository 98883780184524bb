package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// VerifyOptions narrow a Verify; the zero value checks everything.
type VerifyOptions struct {
	// SkipContent leaves out reading the blobs' bytes: sizes are compared,
	// checksums are not.
	SkipContent bool
	// Progress is told, now and then, how many blobs have been looked at, of
	// about how many. It must not call the store.
	Progress func(done, total int64)
}

// Verify checks that every promise holds now: the index against itself, every
// row against its file and sidecar, every file against the rows, and that
// nothing is left over. It runs beside live traffic, and reports of what
// changed meanwhile only what is still so at the end. It ends with an error
// when it cannot go on: ErrCorrupted, ErrPermission, ErrIO, ErrClosed, or
// ctx's. No finding of SeverityDamage means that all is well. The loop's body
// must not close the store.
func (f *FileStore) Verify(ctx context.Context, opts VerifyOptions) iter.Seq2[storage.Finding, error] {
	return func(yield func(storage.Finding, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(storage.Finding{}, err)
			return
		}
		defer leave()
		v := &verification{ctx: ctx, s: s, opts: opts, yield: yield}
		if err := v.run(); err != nil && !errors.Is(err, errStopped) {
			yield(storage.Finding{}, fmt.Errorf("verify %s: %w", s.cfg.BaseDir, storage.Classify(err)))
		}
	}
}

// errStopped ends a verification whose caller wants no more.
var errStopped = errors.New("stopped")

type verification struct {
	ctx    context.Context
	s      *store
	opts   VerifyOptions
	yield  func(storage.Finding, error) bool
	doubts []doubt
}

// doubt is a finding that may come of what goes on meanwhile. still looks again,
// at one thing after the other in an order in which no operation can make it
// true: a path is never used twice, and what commits owe stands in the debt until
// it is paid.
type doubt struct {
	finding storage.Finding
	still   func() (bool, error)
}

func (v *verification) run() error {
	// What is paid leaves staging and the debt.
	if err := v.s.checkpoint(v.ctx, true); err != nil {
		return err
	}
	if err := errors.Join(v.holds(), v.erasures()); err != nil {
		return err
	}
	findings, err := v.s.index.Verify(v.ctx)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if err := v.report(f); err != nil {
			return err
		}
		if f.Kind == storage.FindingIndex {
			err = errStopped // rows of a damaged tree say nothing about files
		}
	}
	if err != nil {
		return err
	}
	for _, step := range [...]func() error{v.blobs, v.files, v.staging, v.unlinks} {
		if err := step(); err != nil {
			return err
		}
	}
	return v.settleDoubts()
}

func (v *verification) report(f storage.Finding) error {
	if f.Severity == "" {
		f.Severity = storage.SeverityDamage
	}
	v.s.watch.found(&f)
	if !v.yield(f, nil) {
		return errStopped
	}
	return nil
}

func (v *verification) doubt(f storage.Finding, still func() (bool, error)) {
	v.doubts = append(v.doubts, doubt{f, still})
}

func (v *verification) settleDoubts() error {
	for _, d := range v.doubts {
		still, err := d.still()
		if err != nil {
			return err
		}
		if still {
			if err := v.report(d.finding); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyPage is how many blob rows are read at a time.
const verifyPage = 256

// blobs looks at the file and the sidecar of every row.
func (v *verification) blobs() error {
	counters, err := v.s.index.Counters(v.ctx)
	if err != nil {
		return err
	}
	var done int64
	var after storage.BlobKey
	for {
		page, err := v.s.index.Blobs(v.ctx, after, verifyPage)
		if err != nil {
			return err
		}
		for i := range page {
			if err := v.blob(&page[i]); err != nil {
				return err
			}
			after = page[i].Key
			done++
			if v.opts.Progress != nil {
				v.opts.Progress(done, max(done, counters.Blobs))
			}
		}
		if len(page) < verifyPage {
			return nil
		}
	}
}

func (v *verification) blob(row *storage.BlobRow) error {
	kind, detail, err := v.checkFile(row)
	if err != nil {
		return err
	}
	if kind != "" {
		f := storage.Finding{Kind: kind, Path: row.Path, Blob: row.Key.String(), Detail: detail}
		v.doubt(f, func() (bool, error) {
			// The file, which may have been healed, before the row: one that
			// stands after has stood all along.
			if kind, _, err := v.checkFile(row); err != nil || kind == "" {
				return false, err
			}
			return v.s.stands(v.ctx, row)
		})
	}
	return v.checkSidecar(row)
}

// checkFile compares a row with its file.
func (v *verification) checkFile(row *storage.BlobRow) (kind storage.FindingKind, detail string, err error) {
	file, size, err := v.s.blobs.Open(v.ctx, row.Key, row.Path)
	switch {
	case v.ctx.Err() != nil:
		return "", "", v.ctx.Err()
	case errors.Is(err, storage.ErrNotFound):
		return storage.FindingMissing, "the file is not there; store the same bytes again to heal it, or restore it", nil
	case err != nil:
		return storage.FindingUnreadable, err.Error(), nil
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if size != row.Size {
		return storage.FindingSize, fmt.Sprintf("the file has %d bytes, its row says %d; store the same bytes again to heal it, or restore it", size, row.Size), nil
	}
	if v.opts.SkipContent {
		return "", "", nil
	}
	sum := crc32.New(castagnoli)
	buf := newBuffer(0)
	defer freeBuffer(buf)
	_, err = io.CopyBuffer(sum, struct{ io.Reader }{contextReader{v.ctx, file}}, *buf)
	switch {
	case v.ctx.Err() != nil:
		return "", "", v.ctx.Err()
	case err != nil:
		return storage.FindingUnreadable, storage.Classify(err).Error(), nil
	case sum.Sum32() != row.CRC:
		return storage.FindingChecksum, fmt.Sprintf("CRC-32C %08x, its row says %08x; restore the file from a backup, or move the damaged file away and store the same bytes again", sum.Sum32(), row.CRC), nil
	}
	return "", "", nil
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

// checkSidecar compares a sidecar with the rows it mirrors.
func (v *verification) checkSidecar(row *storage.BlobRow) error {
	detail, err := v.sidecarFault(row)
	if err != nil || detail == "" {
		return err
	}
	f := storage.Finding{Kind: storage.FindingSidecar, Path: row.Path + ".meta", Blob: row.Key.String(), Detail: detail}
	v.doubt(f, func() (bool, error) { return v.stillSidecarFault(row) })
	return nil
}

// stillSidecarFault looks at sidecar, rows and debt, in this order. It holds the
// lock under which lines are written, so that what the sidecar lacks stays in
// the debt meanwhile.
func (v *verification) stillSidecarFault(row *storage.BlobRow) (bool, error) {
	unlock, err := v.s.keys.lock(v.ctx, row.Key)
	if err != nil {
		return false, err
	}
	defer unlock()
	now, err := v.s.index.Blob(v.ctx, row.Key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && now.Path != row.Path {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if detail, err := v.sidecarFault(&now); err != nil || detail == "" {
		return false, err
	}
	debt, err := v.s.index.Debt(v.ctx)
	if err != nil {
		return false, err
	}
	for i := range debt.Mirrors {
		if debt.Mirrors[i].Blob == row.Key {
			return false, nil // lines that are still owed are no fault of the sidecar
		}
	}
	return v.s.stands(v.ctx, row)
}

// sidecarFault is what is wrong with a sidecar: it must tell of the blob, and
// of as many live references as the refcount says, all of which are rows.
func (v *verification) sidecarFault(row *storage.BlobRow) (string, error) {
	sidecar, err := v.s.blobs.ReadSidecar(v.ctx, row.Path)
	switch {
	case v.ctx.Err() != nil:
		return "", v.ctx.Err()
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
	for u := range live {
		id, err := storage.ParseID(row.NameHash() + "-" + u.String())
		if err != nil {
			return "", err
		}
		ref, _, err := v.s.index.Ref(v.ctx, id)
		switch {
		case errors.Is(err, storage.ErrNotFound), err == nil && ref.Blob != row.Key:
			return fmt.Sprintf("the sidecar has reference %s, the index does not", id), nil
		case err != nil:
			return "", err
		}
	}
	if int64(len(live)) != row.Refs {
		return fmt.Sprintf("the sidecar has %d live references (%d lines cannot be read), the row's refcount is %d", len(live), sidecar.Damaged, row.Refs), nil
	}
	return "", nil
}

// files looks for files that no row names.
func (v *verification) files() error {
	for file, err := range v.s.blobs.Files(v.ctx) {
		if err != nil {
			return err
		}
		if !file.Ours {
			f := storage.Finding{Kind: storage.FindingForeignFile, Severity: storage.SeverityNotice, Path: file.Path,
				Detail: "not a file of this store; it is left alone"}
			if err := v.report(f); err != nil {
				return err
			}
			continue
		}
		named, err := v.named(&file)
		if err != nil {
			return err
		}
		if !named {
			f := storage.Finding{Kind: storage.FindingOrphan, Path: file.Path, Detail: "no row of the index names this file"}
			v.doubt(f, func() (bool, error) { return v.stillOrphan(&file) })
		}
	}
	return nil
}

// named says whether a row names a file. The row is found by the file's name:
// the key of a blob of its own is the UUID, that of a shared one begins with
// the hash.
func (v *verification) named(file *storage.TreeFile) (bool, error) {
	row, err := v.s.index.Blob(v.ctx, storage.UUIDKey(file.ID.UUID))
	if err == nil {
		return row.Path == file.Blob, nil
	} else if !errors.Is(err, storage.ErrNotFound) {
		return false, err
	}
	var low storage.Digest
	copy(low[:], file.ID.Hash[:])
	prefix := string(storage.DigestKey(low)[:1+len(file.ID.Hash)])
	// Just before the first key with that prefix.
	for after := storage.BlobKey(prefix); ; {
		page, err := v.s.index.Blobs(v.ctx, after, 8)
		if err != nil {
			return false, err
		}
		for i := range page {
			after = page[i].Key
			if string(after[:len(prefix)]) != prefix {
				return false, nil
			}
			if page[i].Path == file.Blob {
				return true, nil
			}
		}
		if len(page) == 0 {
			return false, nil
		}
	}
}

// stillOrphan looks at rows, debt and tree, in this order: a row that goes leaves
// an unlink behind, and an unlink goes after its file.
func (v *verification) stillOrphan(file *storage.TreeFile) (bool, error) {
	named, err := v.named(file)
	if err != nil || named {
		return false, err
	}
	debt, err := v.s.index.Debt(v.ctx)
	if err != nil {
		return false, err
	}
	if slices.Contains(debt.Unlinks, storage.Unlink{Path: file.Blob}) {
		return false, nil // reported as an unlink
	}
	_, err = v.s.blobs.Size(v.ctx, file.Path)
	return !errors.Is(err, storage.ErrNotFound), nil
}

// staging looks for files that no call under way needs.
func (v *verification) staging() error {
	staged, err := v.s.blobs.Staged(v.ctx)
	if err != nil {
		return err
	}
	for _, file := range staged {
		if file.InUse {
			continue
		}
		if file.Key == "" && !file.Spool {
			f := storage.Finding{Kind: storage.FindingForeignFile, Severity: storage.SeverityNotice, Path: file.Path,
				Detail: "a file in staging that is not of this store; it is left alone"}
			if err := v.report(f); err != nil {
				return err
			}
			continue
		}
		f := storage.Finding{Kind: storage.FindingStaging, Path: file.Path, Blob: file.Key.String(),
			Detail: "a leftover in staging; the next opening of the store deals with it"}
		if err := v.report(f); err != nil {
			return err
		}
	}
	return nil
}

// unlinks looks for files of deleted blobs that should be gone.
func (v *verification) unlinks() error {
	debt, err := v.s.index.Debt(v.ctx)
	if err != nil {
		return err
	}
	for _, u := range debt.Unlinks {
		f := storage.Finding{Kind: storage.FindingUnlink, Path: u.Path,
			Detail: "deleted, and the file is still there; see the log for why it cannot be removed"}
		file := storage.TreeFile{Blob: u.Path}
		stem, _, _ := strings.Cut(path.Base(u.Path), ".")
		if file.ID, err = storage.ParseID(stem); err != nil {
			return fmt.Errorf("%w: unlink of %q: %w", storage.ErrCorrupted, u.Path, err)
		}
		v.doubt(f, func() (bool, error) { return v.stillThere(&file) })
	}
	return nil
}

// removalTime is how long a deletion may take from its commit to the end of its
// files, and removalPause how often to look. One that has failed is not waited
// for.
const (
	removalTime  = 10 * time.Second
	removalPause = 10 * time.Millisecond
)

// stillThere says whether a deletion has left a blob or its sidecar behind. What has
// a row by now was on its way to this path.
func (v *verification) stillThere(file *storage.TreeFile) (bool, error) {
	deadline := time.Now().Add(removalTime)
	for {
		_, blob := v.s.blobs.Size(v.ctx, file.Blob)
		_, sidecar := v.s.blobs.Size(v.ctx, file.Blob+".meta")
		named, err := v.named(file)
		switch {
		case v.ctx.Err() != nil:
			return false, v.ctx.Err()
		case err != nil || named:
			return false, err
		case errors.Is(blob, storage.ErrNotFound) && errors.Is(sidecar, storage.ErrNotFound):
			return false, nil
		case v.s.ledger.owesFile(file.Blob), time.Now().After(deadline):
			return true, nil
		}
		select {
		case <-v.ctx.Done():
		case <-time.After(removalPause):
		}
	}
}
