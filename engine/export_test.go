package engine

import "context"

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

	FaultPlaced    = faultPlaced
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
