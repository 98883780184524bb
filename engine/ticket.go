package engine

import (
	"context"
	"errors"

	"github.com/mediabolt/mediabolt/storage"
)

// ticket is what one Store, or one reference of an Import, has reserved. A nil ticket is of a store without
// limits.
type ticket struct {
	l             *limits
	user, session string
	shares        bool // its bytes may be there already
	held          []claim
}

// ticket is for a Store of a reference with metadata m. It must be given back.
func (s *store) ticket(m *storage.MediaMetadata) *ticket {
	if s.limits == nil {
		return nil
	}
	_, shares := s.sharedKey(storage.Digest{}, m)
	return &ticket{l: s.limits, user: m.UserID, session: m.SessionID, shares: shares}
}

// anyTicket is for bytes that come before it is known whose references they are to
// have: they may be there already, in whichever scope.
func (s *store) anyTicket() *ticket {
	if s.limits == nil {
		return nil
	}
	return &ticket{l: s.limits, shares: true}
}

// giveBack lets go of all that is reserved.
func (t *ticket) giveBack() {
	if t != nil {
		t.l.release(t.held)
		t.held = nil
	}
}

func (t *ticket) reserve(ctx context.Context, claims []claim) error {
	err := t.l.reserve(ctx, claims)
	if err == nil {
		t.held = append(t.held, claims...)
	}
	return err
}

// logical is what a reference to n bytes claims, whether they are shared or not:
// room for none but what the index writes.
func (t *ticket) logical(n int64) (claims []claim) {
	if t.l.quota.UserBytes > 0 && t.user != "" {
		claims = append(claims, claim{bound{LimitUser, t.user}, n})
	}
	if t.l.quota.SessionBytes > 0 && t.session != "" {
		claims = append(claims, claim{bound{LimitSession, t.session}, n})
	}
	if t.l.room != nil {
		claims = append(claims, claim{bound{limit: LimitFree}, 0})
	}
	return claims
}

// physical is what a new blob of n bytes claims, of which some are to be written.
func (t *ticket) physical(n, written int64) (claims []claim) {
	if t.l.quota.TotalBytes > 0 {
		claims = append(claims, claim{bound{limit: LimitTotal}, n})
	}
	if t.l.room != nil {
		claims = append(claims, claim{bound{limit: LimitFree}, t.l.room.blocks(written)})
	}
	return claims
}

// reserveReference reserves what a reference to a payload takes.
func (t *ticket) reserveReference(ctx context.Context, p *payload) error {
	if t == nil {
		return nil
	}
	return t.reserve(ctx, t.logical(p.size))
}

// reserveBlob reserves what the bytes of a payload take. Where they are to heal a
// blob, they are in the total already, as long as its row is there: when it goes
// after they were reserved, nobody else gets what that frees.
func (t *ticket) reserveBlob(ctx context.Context, p *payload, key storage.BlobKey, heals bool) error {
	switch {
	case t == nil:
		return nil
	case p.refused != nil:
		return p.refused
	}
	written := p.size
	if p.spool != "" {
		written = 0 // it is all there
	}
	claims := t.physical(p.size, written)
	if !heals || t.l.quota.TotalBytes == 0 {
		return t.reserve(ctx, claims)
	}
	total := claims[:1]
	t.l.mu.Lock()
	t.l.hold(total)
	t.l.mu.Unlock()
	if _, err := t.l.index.Blob(ctx, key); err == nil {
		t.held = append(t.held, total...)
		return t.reserve(ctx, claims[1:])
	} else if !errors.Is(err, storage.ErrNotFound) {
		t.l.release(total)
		return err
	}
	t.l.release(total)
	return t.reserve(ctx, claims)
}

// allows says whether content of n bytes or more, of which so many are to be
// written now, can fit. It looks at what is there alone, for what others have
// reserved may come to nothing.
func (t *ticket) allows(ctx context.Context, n, written int64) error {
	if t == nil {
		return nil
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	_, err := t.l.fits(ctx, append(t.logical(n), t.physical(n, written)...))
	return err
}
