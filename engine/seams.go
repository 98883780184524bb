package engine

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// Index is what a store needs of its index; package boltindex has the one that
// comes with it, package indextest the suite that every one must pass. All
// methods are safe for concurrent use. A change is durable when its method
// returns, and an error means that it was not made, except where a commit is
// in doubt: then no further change is accepted.
type Index interface {
	// Blob is a blob's row, or ErrNotFound.
	Blob(ctx context.Context, key storage.BlobKey) (storage.BlobRow, error)
	// Ref is a reference and its blob, or ErrNotFound.
	Ref(ctx context.Context, id storage.ID) (storage.RefRow, storage.BlobRow, error)
	// Refs is a page of references after a UUID, in the filter's order. It costs what
	// the narrowest list of its IDs and digest holds after that, page by page.
	Refs(ctx context.Context, filter storage.RefFilter, after storage.UUID, limit int) (page []storage.RefPair, next storage.UUID, more bool, err error)
	// Blobs is a page of blobs after a key, in order; a short one is the last.
	Blobs(ctx context.Context, after storage.BlobKey, limit int) ([]storage.BlobRow, error)
	// IDs is a page of the IDs of a kind that references have, each once, after an ID
	// (empty: from the first), in an order of the index's own; a short one is the
	// last.
	IDs(ctx context.Context, kind storage.IDKind, after string, limit int) ([]string, error)
	// Due is a page of the references that expire before a time, soonest first, after
	// a place. It costs what it shows.
	Due(ctx context.Context, before time.Time, after storage.Place, limit int) (page []storage.RefPair, next storage.Place, more bool, err error)
	// Counters are the totals, Usage those of one session or user.
	Counters(ctx context.Context) (storage.Counters, error)
	Usage(ctx context.Context, kind storage.IDKind, id string) (storage.Usage, error)
	// Size is how much room the index takes, in bytes.
	Size(ctx context.Context) (int64, error)

	// Add adds a reference to a blob that is there, or else inserts the blob
	// if add.Staged, or else is ErrNotFound. It returns the blob's row. An
	// index is given a function that makes staged bytes durable (Sync of
	// Blobs), and calls it before it commits an addition that is staged, once
	// for all that it commits together.
	Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error)
	// Remove ends a reference, and its blob with the last one; of one that counts
	// several it takes one from the count.
	Remove(ctx context.Context, id storage.ID) (storage.Removal, error)
	// End ends a reference whatever its count, if it expires at a time or before;
	// with the zero time in any case.
	End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error)
	// Revise changes a reference's policy, expiry and count: revise, which may be
	// called several times and calls nothing, changes them in the row and says
	// whether it did. Then the row's revision is one more. It returns the reference
	// as it stands, or ErrNotFound.
	Revise(ctx context.Context, id storage.ID, revise func(ref *storage.RefRow) bool) (storage.RefPair, error)
	// Move gives a blob another path, where nothing is and of which nothing is owed but
	// an Unlink for this, and the organization mode of that. The old path becomes an
	// Unlink, the new one is none any more; nothing has ended since. It is ErrNotFound
	// for a blob that is not there, ErrConflict for the path that it has: that must not
	// be owed.
	Move(ctx context.Context, key storage.BlobKey, path string, mode storage.OrganizationMode) (storage.BlobRow, error)
	// Touch notes when a blob was read, to be written at some later time.
	Touch(key storage.BlobKey, at time.Time)

	// Debt is what changes owe to the tree: a Mirror for every Add and Revise, for
	// every Remove and End of one of several, and for every Move; an Unlink for every
	// other Remove and End, and for every Move.
	Debt(ctx context.Context) (storage.Debt, error)
	// Owe adds to the debt, Settle drops what has been paid.
	Owe(ctx context.Context, debt storage.Debt) error
	Settle(ctx context.Context, paid storage.Debt) error

	// Organization is the store's mode, as recorded.
	Organization() storage.OrganizationMode

	// Verify checks the index against itself.
	Verify(ctx context.Context) ([]storage.Finding, error)
	// Close closes the index; nothing is under way or follows.
	Close() error
}

// IndexConfig is what a store tells the index that it opens.
type IndexConfig struct {
	// Root is the directory for the files of the index; those of others there
	// are staging, and what else does not concern it. The store closes it.
	Root *os.Root
	// Create allows a new index to be made where there is none; without it that
	// is ErrNoStore.
	Create bool
	// Organization is to be recorded as the store's mode. Empty: the recorded
	// one stays, in a new index by-session.
	Organization storage.OrganizationMode
	// NoSync leaves out every sync.
	NoSync bool
	// LockTimeout is how long to wait for another process to let go of the index
	// before ErrLocked. Zero: one attempt.
	LockTimeout time.Duration
	// FileMode of new files.
	FileMode fs.FileMode
	// CompactAt is from how many free bytes in its files on the index makes them
	// smaller by itself, if it can. Zero: its own default. Negative: never.
	CompactAt int64
	// Sync makes staged bytes durable; see Index.Add.
	Sync func(keys []storage.BlobKey) error
	// Committed is told of every group of changes that became durable together,
	// once for each, between two groups: it returns at once and does not call
	// the index. An index need not tell.
	Committed func(storage.Commit)
	// Compacted is told of every time that the index has made its files smaller by
	// itself, with no lock held. An index need not tell.
	Compacted func(storage.Compaction)
	// Logger gets what no caller waits for.
	Logger *slog.Logger
}

// openBoltIndex opens the index that comes with the engine.
func openBoltIndex(ctx context.Context, config IndexConfig) (Index, error) {
	index, err := boltindex.Open(ctx, boltindex.Config(config))
	if err != nil {
		return nil, err // an interface that holds a nil pointer is not nil
	}
	return index, nil
}

// Blobs is what a store needs of the place where blobs are; package blobs has
// the one that comes with it and says what each step means for durability. All
// methods are safe for concurrent use; steps on one key come in order.
type Blobs interface {
	// Stage writes bytes under a key, where no reader looks.
	Stage(ctx context.Context, key storage.BlobKey, data []byte) error
	// Spool writes a stream whose key is not known yet; Claim stages it under
	// its key, Drop removes it. A stream that is a blobs.Watcher is told of each
	// piece once it is written.
	Spool(ctx context.Context, id storage.UUID, r io.Reader) (spool string, err error)
	Claim(ctx context.Context, spool string, key storage.BlobKey) error
	Drop(ctx context.Context, spool string) error
	// Sync makes what is staged durable, all in one go.
	Sync(ctx context.Context, keys ...storage.BlobKey) error
	// Discard removes what is staged.
	Discard(ctx context.Context, key storage.BlobKey) error
	// Prepare makes room for a path until done is called.
	Prepare(ctx context.Context, path string) (done func(published bool), err error)
	// Publish gives a staged blob its path; Published records that it has it.
	Publish(ctx context.Context, key storage.BlobKey, path string) error
	Published(key storage.BlobKey, path string)
	// Link gives a blob at a path a second one, which was prepared.
	Link(ctx context.Context, from, to string) error
	// Open opens a blob, at its path or staged, and tells its size in bytes.
	Open(ctx context.Context, key storage.BlobKey, path string) (storage.File, int64, error)
	// OpenStaged opens what is staged under a key.
	OpenStaged(ctx context.Context, key storage.BlobKey) (storage.File, int64, error)
	// Linked says whether what is staged under a key is the very file at a path.
	Linked(ctx context.Context, key storage.BlobKey, path string) (bool, error)
	// Size is the size of what is at a path, in bytes.
	Size(ctx context.Context, path string) (int64, error)
	// Remove removes a blob and its sidecar.
	Remove(ctx context.Context, key storage.BlobKey, path string) error
	// PruneNamed removes the empty directories of an ID of a kind, and tells of those
	// that have files which are not of the store, and no others.
	PruneNamed(ctx context.Context, kind storage.IDKind, id string) (foreign []string, err error)
	// AppendSidecar and ReadSidecar write and read the mirror of the rows.
	AppendSidecar(ctx context.Context, blob *storage.BlobRow, lines ...storage.SidecarLine) error
	ReadSidecar(ctx context.Context, path string) (storage.Sidecar, error)
	// ReplaceSidecar makes a sidecar anew, of lines that the first error ends. With
	// whole it is all at once, whatever happens; without, a crash before the next
	// Settle may leave any part of it.
	ReplaceSidecar(ctx context.Context, blob *storage.BlobRow, lines iter.Seq2[storage.SidecarLine, error], whole bool) error
	// RenewSidecar sees to it that the next Settle makes durable what a sidecar
	// holds from an offset on, also where a sync of it has failed.
	RenewSidecar(ctx context.Context, path string, from int64) error
	// KeepSidecar sees to it that the next Settle makes durable what is at a path, and
	// its sidecar, as they are.
	KeepSidecar(path string)
	// Settle makes all that has returned before durable.
	Settle(ctx context.Context) error
	// Staged lists what is staged, Files all files of the tree.
	Staged(ctx context.Context) ([]storage.StagedFile, error)
	Files(ctx context.Context) iter.Seq2[storage.TreeFile, error]
	Quarantine
	// Close closes; nothing is under way or follows.
	Close() error
}

// Quarantine is the part of Blobs where a repair moves files instead of removing
// them, in batches, each with a manifest. Its methods are steps like those of
// Blobs.
type Quarantine interface {
	// SetAside moves what is at a path to a batch; PutBack moves it back, where
	// nothing may be.
	SetAside(ctx context.Context, batch, path string) error
	PutBack(ctx context.Context, batch, path string) error
	// Aside tells what a batch has of a path. A file that is in both, after a
	// crash, leaves the batch with ForgetAside.
	Aside(ctx context.Context, batch, path string) (storage.AsideFile, error)
	ForgetAside(ctx context.Context, batch, path string) error
	// ReadAside reads the sidecar that a batch has of the blob of a path.
	ReadAside(ctx context.Context, batch, path string) (storage.Sidecar, error)
	// NoteAside appends lines to the manifest of a batch, durably; Manifest reads it.
	NoteAside(ctx context.Context, batch string, lines []byte) error
	Manifest(ctx context.Context, batch string) ([]byte, error)
	// Batches lists all of them; Purge removes one for good.
	Batches(ctx context.Context) ([]string, error)
	Purge(ctx context.Context, batch string) error
}

var (
	_ Index                       = (*boltindex.Index)(nil)
	_ Blobs                       = (*blobs.Tree)(nil)
	_ storage.MediaStorageService = (*FileStore)(nil)
)
