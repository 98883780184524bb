package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// restore adds the references of a blob to the new index, and settles the debt of
// the lines that its sidecar has.
func (r *rebuilding) restore(ctx context.Context, b *restored) error {
	unlock, err := r.s.keys.lock(ctx, b.row.Key)
	if err != nil {
		return err
	}
	defer unlock()
	switch there, err := r.s.index.Blob(ctx, b.row.Key); {
	case err == nil:
		if first, err := r.outrank(ctx, &there, b); !first || err != nil {
			return err
		}
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	if err := r.addAll(ctx, b); err != nil {
		return err
	}
	if err := r.tellFault(b); err != nil {
		return err
	}
	r.mu.Lock()
	r.result.Adopted += b.adopted
	r.result.Recovered += b.from
	if b.odd {
		r.odd++
	}
	r.mu.Unlock()
	r.count(&b.row, b.refs)
	return nil
}

// addAll adds the references of a blob, the first before the others. Those that have
// ended are added and ended again, with nothing but their UUID, so that they count.
func (r *rebuilding) addAll(ctx context.Context, b *restored) error {
	add := func(ref *storage.RefRow) error {
		_, err := r.s.index.Add(ctx, &storage.Addition{Ref: *ref, Blob: b.row, Staged: true})
		if err != nil {
			return fmt.Errorf("reference %s: %w", ref.UUID, err)
		}
		return nil
	}
	if err := add(&b.refs[0]); err != nil {
		return err
	}
	rest := b.refs[1:]
	failed := make([]error, len(rest)+len(b.ended))
	parallel(len(failed), func(i int) {
		if failed[i] = ctx.Err(); failed[i] != nil {
			return
		}
		if i < len(rest) {
			failed[i] = add(&rest[i])
			return
		}
		id := b.ended[i-len(rest)]
		if failed[i] = add(&storage.RefRow{UUID: id, Blob: b.row.Key}); failed[i] == nil {
			failed[i] = r.end(ctx, &b.row, id)
		}
	})
	if err := errors.Join(failed...); err != nil {
		return err
	}
	paid := make([]storage.Mirror, len(b.ended), len(b.ended)+len(b.told))
	for i, id := range b.ended {
		paid[i] = storage.Mirror{UUID: id, Blob: b.row.Key} // of the addition just made
	}
	if err := r.payLines(ctx, append(paid, b.told...)); err != nil {
		return err
	}
	if m, named := storage.WholeMirror(&b.row); b.whole && named {
		return r.s.index.Owe(ctx, storage.Debt{Mirrors: []storage.Mirror{m}})
	}
	return nil
}

// end ends a reference, whatever its count.
func (r *rebuilding) end(ctx context.Context, row *storage.BlobRow, ref storage.UUID) error {
	id, err := idOf(row, ref)
	if err == nil {
		_, err = r.s.index.End(ctx, id, time.Time{})
	}
	if err != nil {
		return fmt.Errorf("reference %s: %w", ref, err)
	}
	return nil
}

// tellFault reports what is wrong with the file of a blob, for each of its
// references.
func (r *rebuilding) tellFault(b *restored) error {
	if b.fault == "" {
		return nil
	}
	for i := range b.refs {
		id, err := idOf(&b.row, b.refs[i].UUID)
		if err != nil {
			return err
		}
		r.report(storage.Finding{Kind: b.fault, Path: b.row.Path, Blob: b.row.Key.String(), Ref: id.UUID.String(), Detail: b.detail})
	}
	return nil
}

// secondFile is the detail of a file that no row is going to name, for one names that of
// a path.
const secondFile = "a second file of a blob that lies at %s: it is left alone, and references that only its sidecar tells of are not restored"

// outrank decides between two files of one key, of which there is but one unless
// the other was deleted, and not removed yet, or copied by somebody: the one that
// came later; of two of one name, as a move leaves them, the one whose file is whole, or
// else whose sidecar is, or else whose path comes first. It says whether b is to be added; the other one then has
// left the index. The caller has the lock of the key.
func (r *rebuilding) outrank(ctx context.Context, there *storage.BlobRow, b *restored) (bool, error) {
	founder, _ := there.Founder()
	mine := b.file.ID.UUID
	own, _ := b.row.Key.UUID() // whose blob has this name until it is moved
	size, err := r.s.blobs.Size(ctx, there.Path)
	odd := err != nil || size != there.Size
	stays := there.Path < b.row.Path
	switch {
	case founder != mine:
		stays = mine != own && (founder == own || string(founder[:]) > string(mine[:]))
	case odd != b.odd:
		stays = b.odd
	default:
		side, err := r.s.blobs.ReadSidecar(ctx, there.Path)
		if poor := err != nil || isPoor(&side); poor != b.poor {
			stays = b.poor
		}
	}
	if stays {
		r.leave(b.row.Path, !b.odd, storage.Finding{Kind: storage.FindingOrphan, Blob: b.row.Key.String(), Detail: fmt.Sprintf(secondFile, there.Path)})
		return false, nil
	}
	other, err := r.gather(ctx, storage.TreeFile{Path: there.Path, Ours: true, Blob: there.Path, ID: storage.ID{Hash: b.file.ID.Hash, UUID: founder}})
	if err != nil {
		return false, err
	}
	if other == nil { // nothing tells of it any more
		other = &restored{}
	}
	// Its sidecar may tell less by now, or nothing: what was added is in the rows.
	other.row, other.odd, other.refs = *there, odd, nil
	for p, err := range r.s.sharers(ctx, there) {
		if err != nil {
			return false, err
		}
		other.refs = append(other.refs, p.Ref)
	}
	for i := range other.refs {
		if err := r.end(ctx, there, other.refs[i].UUID); err != nil {
			return false, err
		}
	}
	debt, err := r.s.index.Debt(ctx)
	if err != nil {
		return false, err
	}
	debt.Mirrors = slices.DeleteFunc(debt.Mirrors, func(m storage.Mirror) bool { return m.Blob != b.row.Key })
	debt.Unlinks = slices.DeleteFunc(debt.Unlinks, func(u storage.Unlink) bool { return u.Path != there.Path })
	if err := r.s.index.Settle(ctx, debt); err != nil {
		return false, err
	}
	r.uncount(other)
	r.leave(there.Path, !other.odd, storage.Finding{Kind: storage.FindingOrphan, Blob: b.row.Key.String(), Detail: fmt.Sprintf(secondFile, b.row.Path)})
	return true, nil
}

// isPoor says whether a sidecar may lack references.
func isPoor(side *storage.Sidecar) bool { return side.Blob.Key == "" || side.Damaged > 0 }

func (r *rebuilding) uncount(b *restored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Adopted -= b.adopted
	r.result.Recovered -= b.from
	r.sum.Blobs--
	r.sum.PhysicalBytes -= b.row.Size
	for i := range b.refs {
		r.sum.CountRef(&b.refs[i].Metadata, b.row.Size, -1)
	}
	if b.odd {
		r.odd--
	}
}

// leave reports a file that no row is going to name.
func (r *rebuilding) leave(path string, blob bool, f storage.Finding) {
	f.Path = path
	r.report(f)
	if blob {
		r.mu.Lock()
		r.unnamed++
		r.mu.Unlock()
	}
}

// oweUnlink has the next opening remove a blob that was deleted.
func (r *rebuilding) oweUnlink(ctx context.Context, file *storage.TreeFile) error {
	if !file.Sidecar {
		r.mu.Lock()
		r.unnamed++
		r.mu.Unlock()
	}
	return r.s.index.Owe(ctx, storage.Debt{Unlinks: []storage.Unlink{{Path: file.Blob}}})
}

// payBatch is how many lines are settled at a time.
const payBatch = 4096

// payLines has the debt of lines dropped that the sidecars have.
func (r *rebuilding) payLines(ctx context.Context, lines []storage.Mirror) error {
	r.mu.Lock()
	r.paid = append(r.paid, lines...)
	var batch []storage.Mirror
	if len(r.paid) >= payBatch {
		batch, r.paid = r.paid, nil
	}
	r.mu.Unlock()
	return r.pay(ctx, batch)
}

func (r *rebuilding) pay(ctx context.Context, lines []storage.Mirror) error {
	if len(lines) == 0 {
		return nil
	}
	return r.s.index.Settle(ctx, storage.Debt{Mirrors: lines})
}

func (r *rebuilding) settle(ctx context.Context) error {
	if err := r.pay(ctx, r.paid); err != nil {
		return err
	}
	return r.s.blobs.Settle(ctx)
}

// unseen restores the blobs that the old index or its log tells of, and the tree
// does not: they are in staging, or gone.
func (r *rebuilding) unseen(ctx context.Context) error {
	for key, row := range r.remains.blobs {
		refs := r.remains.refs[key]
		if has(r.seen, key) || has(r.remains.unlinks, row.Path) || len(refs) == 0 {
			continue
		}
		founder, _ := row.Founder()
		b := &restored{file: storage.TreeFile{Blob: row.Path, ID: storage.ID{UUID: founder}}, row: row, refs: slices.Clone(refs), from: int64(len(refs))}
		b.row.Refs = 0
		if err := r.measure(ctx, b); err != nil {
			return err
		}
		if err := r.restore(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// staged restores what is in staging although no row tells of it, unless it is
// known that its commit never came.
func (r *rebuilding) staged(ctx context.Context) error {
	if r.remains.known {
		return nil
	}
	for _, file := range r.inStaging {
		if file.Key == "" {
			continue
		}
		_, err := r.s.index.Blob(ctx, file.Key)
		if errors.Is(err, storage.ErrNotFound) {
			err = r.adoptStaged(ctx, &file)
		}
		if err != nil {
			return fmt.Errorf("staged file %s: %w", file.Path, err)
		}
	}
	return nil
}

// adoptStaged makes a reference to bytes that were staged, and perhaps committed.
// Bytes that are not what their key says were not.
func (r *rebuilding) adoptStaged(ctx context.Context, file *storage.StagedFile) error {
	f, size, err := r.s.blobs.OpenStaged(ctx, file.Key)
	if err != nil {
		return err
	}
	read, head, err := hashAll(ctx, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	var digest storage.Digest
	read.sha.Sum(digest[:0])
	// The digest follows the kind.
	if shared := file.Key.Shared(); shared && file.Key[1:1+len(digest)] != storage.BlobKey(digest[:]) || !shared && size == 0 {
		return nil // the next opening removes it
	}
	id := storage.ID{Hash: [3]byte(digest[:3])}
	if id.UUID, err = r.s.mint.next(); err != nil {
		return err
	}
	if own, is := file.Key.UUID(); is {
		id.UUID = own
	}
	info, err := describe(storage.MediaInfo{}, head)
	if err != nil {
		return err
	}
	created := id.UUID.Time().Truncate(time.Microsecond)
	m := storage.MediaMetadata{CreatedAt: created}
	mode := r.organization()
	if mode == "" {
		mode = storage.OrganizationBySession
	}
	b := &restored{
		row: storage.BlobRow{
			Key: file.Key, Path: path.Join(blobs.Dir(mode, &m), blobs.FileName(id, info.MimeType)), Organization: mode,
			Size: size, CRC: read.crc, Digest: digest, MimeType: info.MimeType, CreatedAt: created,
		},
		refs:    []storage.RefRow{{UUID: id.UUID, Blob: file.Key, Type: info.Type, MimeType: info.MimeType, Metadata: m}},
		adopted: 1, odd: true,
	}
	r.report(storage.Finding{Kind: storage.FindingAdopted, Severity: storage.SeverityNotice, Path: file.Path, Blob: file.Key.String(),
		Ref: id.UUID.String(), Detail: "in staging, and nothing tells whether its store was acknowledged: adopted as " + id.String()})
	return r.restore(ctx, b)
}

// check compares the new index with itself, with what was put into it, and with
// the tree.
func (r *rebuilding) check(ctx context.Context) error {
	findings, err := r.s.index.Verify(ctx)
	if err != nil {
		return err
	}
	for _, f := range findings {
		return fmt.Errorf("%w: the new index: %s %s: %s", storage.ErrCorrupted, f.Kind, cmp.Or(f.Path, f.Blob, f.Ref), f.Detail)
	}
	counters, err := r.s.index.Counters(ctx)
	if err != nil {
		return err
	}
	if counters != r.sum {
		return fmt.Errorf("%w: the new index counts %+v, restored were %+v", storage.ErrCorrupted, counters, r.sum)
	}
	there, err := r.checkRows(ctx)
	if err != nil {
		return err
	}
	return r.checkFiles(ctx, there)
}

// checkRows looks at the file of every row, and counts those that are there.
func (r *rebuilding) checkRows(ctx context.Context) (there int64, err error) {
	var odd, rows int64
	var after storage.BlobKey
	r.begin(RebuildCheck, r.sum.Blobs)
	for {
		page, err := r.s.index.Blobs(ctx, after, verifyPage)
		if err != nil {
			return 0, err
		}
		for i := range page {
			after = page[i].Key
			rows++
			size, err := r.s.blobs.Size(ctx, page[i].Path)
			if err != nil || size != page[i].Size {
				odd++
			}
			if !errors.Is(err, storage.ErrNotFound) {
				there++
			}
		}
		r.done(rows)
		if len(page) < verifyPage {
			break
		}
	}
	if odd != r.odd || rows != r.sum.Blobs {
		return 0, fmt.Errorf("%w: %d rows of blobs in the new index, %d of them without a file of their size; expected %d and %d",
			storage.ErrCorrupted, rows, odd, r.sum.Blobs, r.odd)
	}
	return there, ctx.Err()
}

// checkFiles counts the blobs in the tree: those that rows name, and those that are
// left alone.
func (r *rebuilding) checkFiles(ctx context.Context, named int64) error {
	var files int64
	for file, err := range r.s.blobs.Files(ctx) {
		if err != nil {
			return err
		}
		if file.Ours && !file.Sidecar {
			files++
		}
	}
	if files != named+r.unnamed {
		return fmt.Errorf("%w: the tree has %d blobs, rows in the new index name %d, and %d are left alone",
			storage.ErrCorrupted, files, named, r.unnamed)
	}
	return nil
}
