package engine

import (
	"context"
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// keyLocks gives every blob key a lock of its own. It is taken by who writes,
// replaces or removes the files of a blob; several at once by move alone, which
// takes them in their order.
type keyLocks struct {
	mu    sync.Mutex // guards locks
	locks map[storage.BlobKey]*keyLock
}

type keyLock struct {
	held    chan struct{} // of capacity 1; full while the lock is held
	waiters int           // holder included; guarded by keyLocks.mu
}

// lock waits for the lock of key, or for ctx to end.
func (k *keyLocks) lock(ctx context.Context, key storage.BlobKey) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[storage.BlobKey]*keyLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.waiters++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

func (k *keyLocks) leave(key storage.BlobKey, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.waiters--; l.waiters == 0 {
		delete(k.locks, key)
	}
}
