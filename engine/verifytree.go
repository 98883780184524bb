package engine

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// doubtsAtOnce is how many doubts are settled with one look at the debt.
const doubtsAtOnce = 256

// tree looks for files that no row names.
func (v *verification) tree() error {
	v.step = VerifyTree
	var unnamed []storage.TreeFile
	litter, last := "", "" // last is the blob that was named last: its sidecar follows it
	for file, err := range v.s.blobs.Files(v.ctx) {
		if err != nil {
			return err
		}
		if v.seen++; time.Since(v.toldOfStep) > progressPause {
			v.progress()
		}
		if !file.Ours {
			if litter != "" && file.Litter == litter {
				continue // one notice for a directory
			}
			litter = file.Litter
			if err := v.foreign(&file); err != nil {
				return err
			}
			continue
		}
		v.ours++
		if file.Sidecar && file.Blob == last {
			continue
		}
		named, err := v.named(&file)
		switch {
		case err != nil:
			return err
		case named:
			last = file.Blob
		default:
			unnamed = append(unnamed, file)
		}
		if len(unnamed) == doubtsAtOnce {
			if err := v.orphans(unnamed); err != nil {
				return err
			}
			unnamed = unnamed[:0]
		}
	}
	return v.orphans(unnamed)
}

// foreign tells of a file that is none of the store's.
func (v *verification) foreign(file *storage.TreeFile) error {
	f := storage.Finding{Kind: storage.FindingForeignFile, Severity: storage.SeverityNotice, Path: file.Path,
		Detail: "not a file of this store; it is left alone"}
	if file.Litter != "" {
		f.Kind, f.Path, f.Detail = storage.FindingLitter, file.Litter, "left here by the system; harmless"
	}
	return v.report(f)
}

// named says whether a row names a file. The row is found by the file's name:
// the key of a blob of its own is the UUID, that of a shared one begins with
// the hash, whoever may share it.
func (v *verification) named(file *storage.TreeFile) (bool, error) {
	row, err := v.s.index.Blob(v.ctx, storage.UUIDKey(file.ID.UUID))
	if err == nil && row.Path == file.Blob {
		return true, nil
	} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return false, err
	}
	var low storage.Digest
	copy(low[:], file.ID.Hash[:])
	for _, first := range [...]storage.BlobKey{storage.DigestKey(low), storage.ScopedKey(low, storage.Scope{})} {
		if named, err := v.namedFrom(string(first[:1+len(file.ID.Hash)]), file); named || err != nil {
			return named, err
		}
	}
	return false, nil
}

// namedFrom says whether a row names a file whose key begins with a prefix.
func (v *verification) namedFrom(prefix string, file *storage.TreeFile) (bool, error) {
	// Just before the first key with that prefix, which most often is the one.
	for after := storage.BlobKey(prefix); ; {
		page, err := v.s.index.Blobs(v.ctx, after, 1)
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

// orphans tells of the files among these that no row names although nothing is
// under way.
func (v *verification) orphans(files []storage.TreeFile) error {
	still, err := v.stillOrphans(files)
	if err != nil {
		return err
	}
	v.nobodys += int64(len(still))
	for i := range still {
		f := storage.Finding{Kind: storage.FindingOrphan, Path: still[i].Path, Detail: "no row of the index names this file"}
		if err := v.report(f); err != nil {
			return err
		}
	}
	return nil
}

// stillOrphans looks at rows and debt, twice, and then at the tree. A row that goes
// leaves an unlink behind, and an unlink goes after its file: so debt after rows. A path
// that a blob is moving to is owed an unlink until its row names it: so rows after debt,
// and debt once more, for that row may go again.
func (v *verification) stillOrphans(files []storage.TreeFile) (still []storage.TreeFile, err error) {
	still = slices.Clone(files)
	for range 2 {
		if still, err = v.unnamed(still); err != nil || len(still) == 0 {
			return nil, err
		}
		debt, err := v.s.index.Debt(v.ctx)
		if err != nil {
			return nil, err
		}
		owed := make(map[string]bool, len(debt.Unlinks))
		for _, u := range debt.Unlinks {
			owed[u.Path] = true // reported as an unlink
		}
		still = slices.DeleteFunc(still, func(file storage.TreeFile) bool { return owed[file.Blob] })
	}
	still = slices.DeleteFunc(still, func(file storage.TreeFile) bool {
		_, err := v.s.blobs.Size(v.ctx, file.Path)
		return errors.Is(err, storage.ErrNotFound)
	})
	return still, v.ctx.Err()
}

// unnamed is those files that no row names.
func (v *verification) unnamed(files []storage.TreeFile) (rest []storage.TreeFile, err error) {
	for i := range files {
		named, err := v.named(&files[i])
		if err != nil {
			return nil, err
		}
		if !named {
			rest = append(rest, files[i])
		}
	}
	return rest, nil
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
		f := storage.Finding{Kind: storage.FindingStaging, Path: file.Path, Blob: file.Key.String(),
			Detail: "a leftover in staging; the next opening of the store deals with it"}
		if file.Key == "" && !file.Spool {
			f = storage.Finding{Kind: storage.FindingForeignFile, Severity: storage.SeverityNotice, Path: file.Path,
				Detail: "a file in staging that is not of this store; it is left alone"}
		}
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
		file := storage.TreeFile{Blob: u.Path}
		stem, _, _ := strings.Cut(path.Base(u.Path), ".")
		if file.ID, err = storage.ParseID(stem); err != nil {
			return fmt.Errorf("%w: unlink of %q: %w", storage.ErrCorrupted, u.Path, err)
		}
		still, err := v.stillThere(&file)
		if err != nil {
			return err
		}
		if !still {
			continue
		}
		f := storage.Finding{Kind: storage.FindingUnlink, Path: u.Path,
			Detail: "deleted, and the file is still there; see the log for why it cannot be removed"}
		if err := v.report(f); err != nil {
			return err
		}
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
// a row by now was on its way to this path, and what a backup keeps goes after it.
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
		case errors.Is(blob, storage.ErrNotFound) && errors.Is(sidecar, storage.ErrNotFound), v.s.pins.keeps(file.Blob):
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
