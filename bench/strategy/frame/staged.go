package frame

import (
	"sync"

	"github.com/mediabolt/mediabolt/storage"
)

// Staged makes staged bytes durable, in one call for all who wait while another
// call runs. Every strategy gets this grouping, also one that commits operation
// by operation.
type Staged struct {
	sync func(keys []storage.BlobKey) error

	turn sync.Mutex // held during a call

	mu   sync.Mutex // guards next; taken after turn
	next *round     // which gathers keys
}

type round struct {
	keys []storage.BlobKey
	done chan struct{}
	err  error
}

// NewStaged returns a Staged that calls sync. Nil: nothing needs to be done.
func NewStaged(sync func(keys []storage.BlobKey) error) *Staged { return &Staged{sync: sync} }

// Sync makes what is staged under a key durable.
func (s *Staged) Sync(key storage.BlobKey) error {
	if s.sync == nil {
		return nil
	}
	s.mu.Lock()
	r := s.next
	leads := r == nil
	if leads {
		r = &round{done: make(chan struct{})}
		s.next = r
	}
	r.keys = append(r.keys, key)
	s.mu.Unlock()
	if leads {
		s.lead(r)
	}
	<-r.done
	return r.err
}

func (s *Staged) lead(r *round) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	defer close(r.done)
	r.err = s.sync(r.keys)
}
