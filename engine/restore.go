package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// RestoreOptions change how a Restore is made.
type RestoreOptions struct {
	// Config is how source and result are opened; BaseDir and NoCreate do not count.
	Config FileStoreConfig
	// Link shares files with the backup where both are on one filesystem, and takes
	// no space and little time. Default: all bytes are copied, so that no damage of
	// the disk hits both.
	Link bool
	// Ledgers are directories of stores and backups, each of which must be there
	// (ErrNoStore). What their ledgers say was erased does not come back; neither does what was erased in the store that the backup
	// was made of, where that is still in its directory.
	Ledgers []string
	// Progress is told, now and then, what is being done, and for how many references
	// or blobs it is done, of about how many. It must not call the stores.
	Progress func(what RestoreStep, done, total int64)
}

// RestoreStep is a part of a Restore; its values are stable.
type RestoreStep string

const (
	RestoreIndex    = RestoreStep(BackupIndex)
	RestoreCopy     = RestoreStep(BackupCopy)
	RestoreSidecars = RestoreStep(BackupSidecars)
	RestoreVerify   = RestoreStep("verify") // of blobs
)

// Restore makes dest, a directory that is new or empty, the store that the backup in
// source shows. The index of the backup is verified first, the bytes of its blobs
// as they are copied, and the whole store in the end. What a backup was interrupted
// in is ErrCorrupted, what is no backup ErrNoStore, a dest that is not empty
// ErrConflict. A restore that was interrupted is continued by another one; Open
// refuses what it has left.
//
// Blobs that are damaged in the backup are left out with their references; the store
// is whole then all the same, and Restore ends with ErrCorrupted. Other errors are
// those of Open and Backup. The source is opened as a store, so it must be writable
// and nobody else may have it open.
func Restore(ctx context.Context, source, dest string, opts RestoreOptions) (_ Backup, err error) {
	wrap := func(err error) error {
		return fmt.Errorf("restore %s to %s: %w", source, dest, storage.Classify(err))
	}
	marker, err := markerOf(source)
	if err != nil {
		return Backup{}, wrap(err)
	}
	for _, dir := range opts.Ledgers { // one that is misspelt would bring back what was erased
		if _, err := os.Stat(filepath.Join(dir, blobs.ControlDir)); err != nil {
			return Backup{}, wrap(fmt.Errorf("%w: ledger of %s: %w", storage.ErrNoStore, dir, err))
		}
	}
	config := opts.Config
	config.BaseDir, config.NoCreate = source, true
	from, err := Open(ctx, config)
	if err != nil {
		return Backup{}, wrap(err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	done, err := from.restoreTo(ctx, dest, marker, opts)
	if err != nil {
		return done, wrap(err)
	}
	return done, leftOut("restore", source, done.LeftOut)
}

// markerOf is the marker of a backup.
func markerOf(source string) (*backupMarker, error) {
	dir := filepath.Join(source, blobs.ControlDir)
	ctl, err := os.OpenRoot(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not there", storage.ErrNoStore, dir)
	} else if err != nil {
		return nil, err
	}
	m, err := readMarker(ctl)
	if err == nil && (m == nil || m.Kind != kindBackup) {
		err = fmt.Errorf("%w: %s is no backup: it has no %s", storage.ErrNoStore, source, backupMarkerFile)
	}
	return m, errors.Join(err, ctl.Close())
}

// restoreTo makes a copy of a backup a store.
func (f *FileStore) restoreTo(ctx context.Context, dest string, marker *backupMarker, opts RestoreOptions) (Backup, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Backup{}, err
	}
	defer leave()
	findings, err := s.index.Verify(ctx)
	if err != nil {
		return Backup{}, err
	}
	for _, f := range findings {
		if f.Severity != storage.SeverityNotice {
			return Backup{}, fmt.Errorf("%w: the index of the backup: %s: %s", storage.ErrCorrupted, f.Kind, f.Detail)
		}
	}
	b := &backup{ctx: ctx, s: s, opts: BackupOptions{Copy: !opts.Link}}
	if opts.Progress != nil {
		b.opts.Progress = func(what BackupStep, done, total int64) { opts.Progress(RestoreStep(what), done, total) }
	}
	want := backupMarker{Version: backupVersion, Kind: kindRestore, Store: s.storeID(), Directory: s.cfg.BaseDir}
	if err := b.run(dest, want); err != nil {
		return b.done, err
	}
	b.done.At = marker.At
	opts.Ledgers = append(slices.Clone(opts.Ledgers), marker.Directory)
	from := restoredFrom{Version: restoredVersion, Store: marker.Store, At: marker.At}
	b.done.Erased, err = finishRestored(ctx, dest, from, opts)
	return b.done, err
}

// finishRestored erases in a new store what was erased after its backup, verifies it,
// and makes it one that can be opened.
func finishRestored(ctx context.Context, dest string, from restoredFrom, opts RestoreOptions) (erased int64, err error) {
	config := opts.Config
	config.BaseDir, config.NoCreate, config.unfinished = dest, true, true
	f, err := Open(ctx, config)
	if err != nil {
		return 0, err
	}
	erased, err = f.honourErasures(ctx, opts.Ledgers)
	if err == nil {
		err = f.verifyRestored(ctx, opts)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return erased, err
	}
	return erased, unmarkRestored(dest, from, &config)
}

// verifyRestored is an error for the first damage.
func (f *FileStore) verifyRestored(ctx context.Context, opts RestoreOptions) error {
	verify := VerifyOptions{}
	if opts.Progress != nil {
		verify.Progress = func(p VerifyProgress) { opts.Progress(RestoreVerify, p.Blobs, p.TotalBlobs) }
	}
	for finding, err := range f.Verify(ctx, verify) {
		if err != nil {
			return err
		}
		if finding.Severity == storage.SeverityDamage {
			return fmt.Errorf("%w: %s %s: %s", storage.ErrCorrupted, finding.Kind, finding.Path, finding.Detail)
		}
	}
	return nil
}

// unmarkRestored notes of which backup the new store is, and removes what keeps others
// from opening it.
func unmarkRestored(dest string, from restoredFrom, config *FileStoreConfig) error {
	ctl, err := os.OpenRoot(filepath.Join(dest, blobs.ControlDir))
	if err != nil {
		return err
	}
	d := &backupDir{ctl: ctl, noSync: config.Sync == SyncNone}
	err = d.write(restoredFile, from)
	if err == nil {
		err = d.syncControl()
	}
	if err == nil {
		err = d.unmark()
	}
	return errors.Join(err, ctl.Close())
}
