package engine

import (
	"context"
	"time"
)

// FaultPoint names a step between two parts of a protocol, for tests.
type FaultPoint = faultPoint

// The steps at which a test can stop a store.
const (
	FaultStaged    = faultStaged
	FaultCommitted = faultCommitted
	FaultPublished = faultPublished
	FaultRemoved   = faultRemoved
	FaultSettled   = faultSettled
	FaultLinked    = faultLinked
	FaultMoved     = faultMoved
	FaultRestored  = faultRestored
	FaultRebuilt   = faultRebuilt
	FaultSetAside  = faultSetAside
	FaultPlaced    = faultPlaced
	FaultReplaced  = faultReplaced
	FaultNoted     = faultNoted
	FaultAside     = faultAside
	FaultClaimed   = faultClaimed
	FaultWritten   = faultWritten
	FaultLost      = faultLost

	FaultCopied    = faultCopied
	FaultCollected = faultCollected
	FaultTurning   = faultTurning
	FaultTurned    = faultTurned
)

// WithFaults is config with fn called at every fault point.
func WithFaults(config FileStoreConfig, fn func(context.Context, FaultPoint) error) FileStoreConfig {
	config.faults = fn
	return config
}

// WithSeams is config with index and blobs wrapped by fn as they are opened.
func WithSeams(config FileStoreConfig, fn func(Index, Blobs) (Index, Blobs)) FileStoreConfig {
	config.decorate = fn
	return config
}

// WithSyncFS is config with fn in place of syncfs(2).
func WithSyncFS(config FileStoreConfig, fn func() error) FileStoreConfig {
	config.syncFS = fn
	return config
}

// WithClock is config with fn in place of time.Now where policies begin and end.
func WithClock(config FileStoreConfig, fn func() time.Time) FileStoreConfig {
	config.clock = fn
	return config
}

// Abandon lets go of the store as a killed process would: nothing is finished,
// only the operating system's locks and files are let go.
func (f *FileStore) Abandon() error {
	f.mu.Lock()
	f.closed = true
	s := f.store
	f.mu.Unlock()
	close(f.gone)
	f.users.Wait()
	if s == nil {
		return nil
	}
	s.sweeper.stop()
	s.erasures.stop()
	s.ledger.stop()
	return s.closeParts()
}

// WriteSidecars is as much of a checkpoint as writes the sidecars' lines, and
// does not make them durable.
func (f *FileStore) WriteSidecars(ctx context.Context) error {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s.writeWaiting(ctx)
	return nil
}

// Checkpoint makes a checkpoint now.
func (f *FileStore) Checkpoint(ctx context.Context) error {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.checkpoint(ctx, true)
}

// OriginsHeaderOf is the first entry of a record of origins of another version.
func OriginsHeaderOf(magic string) []byte {
	return sealOrigin(append([]byte(magic), make([]byte, originBody-len(magic))...), 0)
}

// FigureAge is how long a figure is used.
const FigureAge = figureAge

// FreeSpaceReader reads what is free on the filesystem of an open store.
func (f *FileStore) FreeSpaceReader() func() error {
	dir, err := f.store.root.Open(".")
	return func() error {
		if err == nil {
			_, err = readFreeSpace(dir)
		}
		return err
	}
}
