package engine

import (
	"context"
	"errors"
	"io"
)

// metered is a stream on its way into a spool, held to the limits chunk by chunk.
// A chunk's room is reserved from when it has been read, so that a slow stream
// keeps nobody waiting, until the second after it is asked for: that one is read
// when it has been written, the one in between meanwhile. No more is reserved on
// the way: streams that wait for each other would wait forever.
type metered struct {
	ctx    context.Context
	t      *ticket
	r      io.Reader
	size   int64 // read so far
	held   []claim
	before []claim // of the chunk before
}

func (m *metered) Read(p []byte) (int, error) {
	m.t.l.release(m.before)
	m.before, m.held = m.held, nil
	n, err := io.ReadFull(m.r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	if n == 0 {
		return 0, err
	}
	m.size += int64(n)
	if refused := m.admit(int64(n)); refused != nil {
		return 0, refused
	}
	return n, err
}

// admit admits a chunk of n bytes.
func (m *metered) admit(n int64) error {
	if err := m.t.allows(m.ctx, m.size, 0); err != nil || m.t.l.room == nil {
		return err
	}
	held := []claim{{bound{limit: LimitFree}, n}}
	if err := m.t.l.reserve(m.ctx, held); err != nil {
		return err
	}
	m.held = held
	return nil
}

// done is called when the last chunk has been written.
func (m *metered) done() {
	m.t.l.release(m.before)
	m.t.l.release(m.held)
	m.before, m.held = nil, nil
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
