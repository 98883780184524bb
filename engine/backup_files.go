package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/storage"
)

// backupBatch is how many blobs are copied before they are synced together; each
// holds a file open.
const backupBatch = 128

// files brings the files of all blobs of the new index.
func (b *backup) files() error {
	counters, err := b.index.Counters(b.ctx)
	if err != nil {
		return err
	}
	var copied, damaged []storage.BlobRow
	done := int64(0)
	err = b.each(func(row *storage.BlobRow) error {
		staged, fault, err := b.file(row)
		switch {
		case err != nil:
			return err
		case fault != nil:
			damaged = append(damaged, *row)
			if fault.Kind != "" {
				b.s.watch.found(fault)
				b.done.LeftOut = append(b.done.LeftOut, *fault)
			}
		case staged:
			copied = append(copied, *row)
		}
		if len(copied) == backupBatch {
			if err := b.publish(copied); err != nil {
				return err
			}
			copied = copied[:0]
		}
		done++
		b.tell(BackupCopy, done, counters.Blobs)
		return b.settleSome()
	})
	if err == nil {
		err = b.publish(copied)
	}
	if err != nil {
		return err
	}
	for i := range damaged {
		if err := b.leaveOut(&damaged[i]); err != nil {
			return err
		}
	}
	return nil
}

// file brings the file of one blob: that of the earlier backup, which is the same
// for a path is never used twice, or the store's, or a copy of it that is staged.
// fault says why it cannot be had; one without a kind is no damage.
func (b *backup) file(row *storage.BlobRow) (staged bool, fault *storage.Finding, err error) {
	if size, err := b.dir.tree.Size(b.ctx, row.Path); err == nil && size == row.Size {
		b.dir.tree.Keep(row.Path)
		b.done.Kept++
		return false, nil, nil
	}
	staged, fault, err = b.bring(row)
	if err != nil || fault == nil {
		return staged, nil, err
	}
	// Whoever heals, publishes or moves the blob finishes first.
	unlock, err := b.s.keys.lock(b.ctx, row.Key)
	if err != nil {
		return false, nil, err
	}
	defer unlock()
	if staged, fault, err = b.bring(row); err != nil || fault == nil {
		return staged, nil, err
	}
	stands, err := b.s.stands(b.ctx, row)
	if err == nil && !stands && !b.s.pins.keeps(row.Path) {
		// Of a Store that could not publish it and has failed.
		fault.Kind = ""
	}
	return false, fault, err
}

// bring links or stages the store's file of a blob, or says what is wrong with it.
func (b *backup) bring(row *storage.BlobRow) (staged bool, fault *storage.Finding, err error) {
	damage := func(kind storage.FindingKind, detail string) (bool, *storage.Finding, error) {
		if b.ctx.Err() != nil {
			return false, nil, b.ctx.Err()
		}
		return false, &storage.Finding{
			Kind: kind, Severity: storage.SeverityDamage, Path: row.Path, Blob: row.Key.String(), Detail: detail,
		}, nil
	}
	file, size, err := b.s.blobs.Open(b.ctx, row.Key, row.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return damage(storage.FindingMissing, "the file is not there")
	case err != nil:
		return damage(storage.FindingUnreadable, err.Error())
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if size != row.Size {
		return damage(storage.FindingSize, fmt.Sprintf("the file has %d bytes, its row says %d", size, row.Size))
	}
	if shared, err := b.share(row, file); err != nil || shared {
		return false, nil, err
	}
	in := &checkedReader{ctx: b.ctx, r: file, row: row}
	if err := b.stage(row, in); err != nil {
		return false, nil, err
	}
	if kind, detail := in.judge(); kind != "" {
		staged, fault, err := damage(kind, detail)
		return staged, fault, errors.Join(err, b.dir.tree.Discard(b.ctx, row.Key))
	}
	b.done.Copied++
	b.done.CopiedBytes += row.Size
	return true, nil, nil
}

// share gives the backup the very file of the store, where that is wanted and can be.
func (b *backup) share(row *storage.BlobRow, file storage.File) (bool, error) {
	f, ok := file.(*os.File)
	if b.opts.Copy || !ok {
		return false, nil
	}
	done, err := b.dir.tree.Prepare(b.ctx, row.Path)
	if err != nil {
		return false, err
	}
	shared, err := b.dir.tree.Share(b.ctx, filepath.Join(b.s.cfg.BaseDir, filepath.FromSlash(row.Path)), f, row.Path)
	done(shared)
	if shared {
		b.done.Shared++
	}
	return shared, err
}

// stage copies bytes into the staging of the backup. What went wrong with reading
// them is kept by in, and is no error.
func (b *backup) stage(row *storage.BlobRow, in *checkedReader) error {
	if row.Size <= inlineLimit {
		buffer := newBuffer(int(row.Size))
		defer freeBuffer(buffer)
		data := (*buffer)[:row.Size]
		n, _ := io.ReadFull(in, data) // in keeps the error
		return b.dir.tree.Stage(b.ctx, row.Key, data[:n])
	}
	id, err := b.s.mint.next()
	if err != nil {
		return err
	}
	spool, err := b.dir.tree.Spool(b.ctx, id, &untilError{in})
	if err != nil {
		return err
	}
	if err := b.dir.tree.Claim(b.ctx, spool, row.Key); err != nil {
		return errors.Join(err, b.dir.tree.Drop(b.ctx, spool))
	}
	return nil
}

// untilError ends at an error, which its reader keeps.
type untilError struct{ in *checkedReader }

func (u *untilError) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// publish makes copies durable and gives them their paths.
func (b *backup) publish(rows []storage.BlobRow) error {
	if len(rows) == 0 {
		return nil
	}
	tree := b.dir.tree
	keys := make([]storage.BlobKey, len(rows))
	for i := range rows {
		keys[i] = rows[i].Key
	}
	if err := tree.Sync(b.ctx, keys...); err != nil {
		return err
	}
	for i := range rows {
		done, err := tree.Prepare(b.ctx, rows[i].Path)
		if err != nil {
			return err
		}
		err = tree.Publish(b.ctx, rows[i].Key, rows[i].Path)
		done(err == nil)
		if err != nil {
			return err
		}
	}
	return b.s.faults.reach(b.ctx, faultCopied)
}
