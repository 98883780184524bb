package engine

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/storage"
)

// mint makes UUIDs of version 7 (RFC 9562) that rise strictly within a
// process, also when the clock is set back.
type mint struct {
	mu   sync.Mutex // guards last
	last storage.UUID
}

// next makes a UUID. Its error is that of the system's randomness.
func (m *mint) next() (storage.UUID, error) {
	fresh, err := uuid.NewV7()
	if err != nil {
		return storage.UUID{}, err
	}
	u := storage.UUID(fresh)
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Compare(u[:8], m.last[:8]) <= 0 {
		// The first 8 bytes are 48 bits of milliseconds, the version, and
		// 12 bits of fraction (RFC 9562, section 6.2, method 3).
		head := binary.BigEndian.Uint64(m.last[:8])
		moment := (head>>16)<<12 | head&0xfff
		moment++
		binary.BigEndian.PutUint64(u[:8], (moment>>12)<<16|0x7000|moment&0xfff)
	}
	m.last = u
	return u, nil
}

// pass has all further UUIDs come after another one.
func (m *mint) pass(other storage.UUID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Compare(other[:], m.last[:]) > 0 {
		m.last = other
	}
}
