// Package frame is what every strategy needs around its storage and does the
// same way, so that a comparison compares storages: a place in the directory of
// the store that one process holds at a time, the sync of staged bytes before a
// commit, the times of access that wait for one, and the refusal of changes once
// a commit is in doubt.
package frame

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// lockName is the file whose lock says which process has the index.
const lockName = "strategy.lock"

// lockRetry is the pause between two attempts to take the lock, as boltindex's.
const lockRetry = 10 * time.Millisecond

// Place is the file or directory of an index, held until Leave.
type Place struct {
	// Path is absolute if the root's name is.
	Path string
	// New says that there is no such file or directory yet.
	New  bool
	lock *os.File
}

// Take takes hold of the file or directory called name in the index's root.
// Errors: ErrNoStore where there is none and config does not allow to make it,
// ErrLocked, or ctx's.
func Take(ctx context.Context, config *engine.IndexConfig, name string) (*Place, error) {
	p := &Place{Path: filepath.Join(config.Root.Name(), name)}
	_, err := config.Root.Lstat(name)
	p.New = errors.Is(err, fs.ErrNotExist)
	switch {
	case p.New && !config.Create:
		return nil, fmt.Errorf("open index %s: %w", p.Path, storage.ErrNoStore)
	case err != nil && !p.New:
		return nil, fmt.Errorf("open index %s: %w", p.Path, storage.Classify(err))
	}
	if err := p.take(ctx, config); err != nil {
		return nil, fmt.Errorf("open index %s: %w", p.Path, storage.Classify(err))
	}
	return p, nil
}

func (p *Place) take(ctx context.Context, config *engine.IndexConfig) error {
	file, err := config.Root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, Mode(config))
	if err != nil {
		return err
	}
	deadline := time.Now().Add(config.LockTimeout)
	for {
		taken, err := tryLock(file)
		if err == nil && !taken && time.Now().After(deadline) {
			err = fmt.Errorf("%w: another process has it open (waited %s)", storage.ErrLocked, config.LockTimeout)
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
		if taken {
			p.lock = file
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), file.Close())
		case <-time.After(lockRetry):
		}
	}
}

// Leave lets go of the place.
func (p *Place) Leave() error { return p.lock.Close() }

// Mode is the mode of new files.
func Mode(config *engine.IndexConfig) fs.FileMode {
	if config.FileMode == 0 {
		return 0o600
	}
	return config.FileMode
}

// Logger is where a storage may say what it has to; nowhere if the store has none.
func Logger(config *engine.IndexConfig) *slog.Logger {
	if config.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return config.Logger
}

// Size is how many bytes the files of the place have allocated on disk: a file
// that is mapped is longer than what has been written of it.
func (p *Place) Size() (int64, error) {
	var size int64
	err := filepath.WalkDir(p.Path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err == nil {
			size += allocated(info)
		}
		return ignoreGone(err)
	})
	return size, err
}

// ignoreGone takes a file that a compaction has just removed for one that was
// not there.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
