package frame

import (
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// maxTouched bounds the times of access that wait; they are coarse, so beyond it
// they are dropped.
const maxTouched = 8192

// Touches are the times of access that wait for a change to be written with.
// The zero value holds none.
type Touches struct {
	mu    sync.Mutex // guards times
	times map[storage.BlobKey]time.Time
}

// Add notes when a blob was read.
func (t *Touches) Add(key storage.BlobKey, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.times == nil {
		t.times = make(map[storage.BlobKey]time.Time)
	}
	if len(t.times) < maxTouched {
		t.times[key] = at
	}
}

// Take returns what waits, nil for nothing; it waits no longer.
func (t *Touches) Take() map[storage.BlobKey]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.times
	t.times = nil
	return taken
}

// PutBack has what was taken wait again, after a change that came to nothing. A
// blob that was read again meanwhile keeps the later time.
func (t *Touches) PutBack(taken map[storage.BlobKey]time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.times == nil {
		t.times = taken
		return
	}
	for key, at := range taken {
		if _, later := t.times[key]; !later {
			t.times[key] = at
		}
	}
}
