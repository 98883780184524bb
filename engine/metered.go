package engine

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/blobs"
)

// metered is a stream on its way into a spool, held to the limits chunk by chunk.
// A chunk's room is reserved from when it has been read, so that a slow stream
// keeps nobody waiting, until it has been written, which waits for nobody. No
// more is reserved on the way: streams that wait for each other would wait forever.
type metered struct {
	ctx  context.Context
	t    *ticket
	r    io.Reader
	size int64        // read so far
	held atomic.Int64 // bytes of room
}

// Next is blobs.Next of the stream, once the chunk is admitted.
func (m *metered) Next(buf []byte) ([]byte, error) {
	p, err := blobs.Next(m.r, buf)
	if len(p) == 0 {
		return nil, err
	}
	m.size += int64(len(p))
	if refused := m.admit(int64(len(p))); refused != nil {
		return nil, refused
	}
	return p, err
}

// Read is Next, for who does not borrow.
func (m *metered) Read(p []byte) (int, error) {
	next, err := m.Next(p)
	return copy(p, next), err
}

// admit admits a chunk of n bytes.
func (m *metered) admit(n int64) error {
	if err := m.t.allows(m.ctx, m.size, 0); err != nil || m.t.l.room == nil {
		return err
	}
	err := m.t.l.reserve(m.ctx, roomFor(n))
	if err == nil {
		m.held.Add(n)
	}
	return err
}

func roomFor(n int64) []claim { return []claim{{bound{limit: LimitFree}, n}} }

// Written is told that n bytes more were written, perhaps while the next are read.
func (m *metered) Written(n int) {
	if m.t.l.room != nil {
		m.held.Add(-int64(n))
		m.t.l.release(roomFor(int64(n)))
	}
}

// done is called when nothing is written any more.
func (m *metered) done() {
	if n := m.held.Swap(0); n > 0 {
		m.t.l.release(roomFor(n))
	}
}

// hashOn is called for a stream of size bytes or more that may not be spooled. Where its bytes may be
// there already, and then take no room, they are hashed to their end, which comes
// before they are more than all that the store holds.
func (s *store) hashOn(ctx context.Context, p *payload, in *hashingReader, size int64, cause error) error {
	limit := new(LimitError)
	if !errors.As(cause, &limit) || limit.Limit != LimitTotal && limit.Limit != LimitFree || !p.ticket.shares {
		return cause
	}
	c, err := s.index.Counters(ctx)
	switch {
	case err != nil:
		return err
	case size > c.PhysicalBytes:
		return cause
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(in, c.PhysicalBytes+1-in.size)); err != nil {
		return err
	}
	if in.size > c.PhysicalBytes {
		return cause
	}
	p.refused = cause
	return nil
}
