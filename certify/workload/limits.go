package workload

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Limited tries to store what does not fit. It is an error if that is not refused.
func (c *Client) Limited(ctx context.Context, content Content, place Place) error {
	n := c.Journal.Begin(Op{Kind: KindLimited, Content: content, Place: place, Scope: c.Scope})
	media := &storage.MediaContent{MimeType: mimeType, Data: "data:;base64," + base64.StdEncoding.EncodeToString(content.Bytes())}
	_, err := c.Store.Store(ctx, media, metadata(n, place))
	err = limited(err)
	c.Journal.End(n, "", err)
	return err
}

// LimitedReader is Limited with StoreReader, whose reader does not tell how much there
// is.
func (c *Client) LimitedReader(ctx context.Context, content Content, place Place) error {
	n := c.Journal.Begin(Op{Kind: KindLimited, Content: content, Place: place, Scope: c.Scope})
	stream := io.LimitReader(content.stream(), int64(content.Size))
	_, err := c.Store.StoreReader(ctx, stream, storage.MediaInfo{MimeType: mimeType}, metadata(n, place))
	err = limited(err)
	c.Journal.End(n, "", err)
	return err
}

// limited is an error unless a store was refused for a limit.
func limited(err error) error {
	limit := new(engine.LimitError)
	switch {
	case err == nil:
		return errors.New("what does not fit was stored")
	case errors.As(err, &limit):
		return nil
	}
	return err
}

// limitedQuota is that of a workload of limits: one user's is full before the session's
// is, and the total before the last scope is done.
var limitedQuota = engine.Quota{TotalBytes: 45_000, UserBytes: 12_000, SessionBytes: 20_000}

// streamQuota has room for one long stream.
var streamQuota = engine.Quota{TotalBytes: longStream}

// limitStreams has streams refused that are partly on disk, and wholly. In the end
// nothing is there.
func (s *script) limitStreams(ctx context.Context) {
	place := Place{Session: "passing", User: "passing"}
	_ = s.client.LimitedReader(ctx, s.content(longStream+pastQuota), place) // the journal has the error
	var refs [2]string
	atOnce(len(refs), func(i int) { refs[i] = s.putReader(ctx, s.content(longStream), place) })
	for _, ref := range refs {
		s.delete(ctx, ref)
	}
}

// pastQuota is more than a store reads of a stream before it looks at its quota again,
// in bytes.
const pastQuota = 300_000

// RunLimits is a workload of scopes and quotas alone, so short that it can be cut after
// each of its events.
func RunLimits(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true, Quota: streamQuota}, s.limitStreams)
	for _, scope := range []engine.DedupScope{engine.ScopeUser, engine.ScopeSession, engine.ScopeGlobal} {
		config := engine.FileStoreConfig{EnableDeduplication: true, DedupScope: scope, Quota: limitedQuota}
		s.session(ctx, config, func(ctx context.Context) { s.limits(ctx, string(scope)) })
	}
	return ctx.Err()
}

// limits has equal bytes stored by some users and sessions of these names, and more
// than they may, also at once.
func (s *script) limits(ctx context.Context, name string) {
	alice := Place{Session: name + " a", Conversation: "conversation", User: "alice " + name}
	bob := Place{Session: name + " b", Conversation: "conversation", User: "bob " + name}
	both := s.content(3000)
	first := s.put(ctx, both, alice)
	s.put(ctx, both, bob)
	s.put(ctx, both, alice)
	s.put(ctx, both, Place{Session: bob.Session, User: alice.User})
	s.put(ctx, both, Place{})
	_ = s.client.Limited(ctx, s.content(int(limitedQuota.UserBytes)), alice) // the journal has the error
	_ = s.client.LimitedReader(ctx, s.content(longStream), bob)
	_ = s.client.Limited(ctx, s.content(int(limitedQuota.TotalBytes)), Place{})
	atOnce(3, func(int) { s.put(ctx, s.content(2000), alice) })
	s.delete(ctx, first)
	atOnce(2, func(int) { s.put(ctx, s.content(3000), alice) })
	s.putReader(ctx, both, alice)
}

// SharedAmong is whom a reference with metadata m shares its bytes with under a
// configuration, in words; empty: nobody.
func SharedAmong(dedup bool, scope engine.DedupScope, m *storage.MediaMetadata) string {
	switch {
	case !dedup:
		return ""
	case scope == engine.ScopeUser && m.UserID != "":
		return "user " + m.UserID
	case scope == engine.ScopeSession && m.SessionID != "":
		return "session " + m.SessionID
	case scope == engine.ScopeUser || scope == engine.ScopeSession:
		return ""
	}
	return "all"
}

// ProbeQuota refuses every probe of Used. A store that is judged is opened with it.
var ProbeQuota = engine.Quota{TotalBytes: 1, UserBytes: 1, SessionBytes: 1}

// probe is more than ProbeQuota lets in.
const probe = "data:;base64,AAAA"

// Used is how many bytes a store that is open with ProbeQuota counts against a user, a
// session, or the total, which has no ID: the refusal of a Store says so.
func Used(ctx context.Context, f *engine.FileStore, kind engine.Limit, id string) (int64, error) {
	var m storage.MediaMetadata
	switch kind {
	case engine.LimitUser:
		m.UserID = id
	case engine.LimitSession:
		m.SessionID = id
	}
	_, err := f.Store(ctx, &storage.MediaContent{MimeType: mimeType, Data: probe}, m)
	limit := new(engine.LimitError)
	switch {
	case errors.As(err, &limit) && limit.Limit == kind && limit.ID == id:
		return limit.Used, nil
	case err == nil:
		err = errors.New("what does not fit was stored")
	case limit.Limit != "":
		err = fmt.Errorf("another limit has refused it: %v", err) // which is no full disk
	}
	return 0, fmt.Errorf("probe the quota of %s %q: %w", kind, cmp.Or(id, "all"), err)
}

// compareLimits compares how bytes are shared with the scopes that they were stored
// in, and what is there with the quotas and with what the store counts against them.
func (j *judge) compareLimits(ctx context.Context, f *engine.FileStore) {
	j.compareScopes()
	type owner struct {
		kind engine.Limit
		id   string
	}
	total := owner{kind: engine.LimitTotal}
	sums, counted := map[owner]int64{total: 0}, map[string]bool{}
	for i := range j.ops {
		p := &j.ops[i].Place
		sums[owner{engine.LimitUser, p.User}], sums[owner{engine.LimitSession, p.Session}] = 0, 0
	}
	for _, e := range j.verdict.present {
		sums[owner{engine.LimitUser, e.Metadata.UserID}] += e.Size
		sums[owner{engine.LimitSession, e.Metadata.SessionID}] += e.Size
		if !counted[e.Path] {
			counted[e.Path] = true
			sums[total] += e.Size
		}
	}
	q := j.quota()
	limits := map[engine.Limit]int64{engine.LimitTotal: q.TotalBytes, engine.LimitUser: q.UserBytes, engine.LimitSession: q.SessionBytes}
	for o, bytes := range sums {
		if o.id == "" && o != total {
			continue
		}
		if limit := limits[o.kind]; limit > 0 && bytes > limit {
			j.add("no quota is exceeded", 0, "", "%s %q has %d bytes, the quota is %d", o.kind, o.id, bytes, limit)
		}
		if used, err := Used(ctx, f, o.kind, o.id); err != nil || used != bytes {
			j.add("usage is that of the references", 0, "", "%s %q has %d bytes, the store counts %d: %v", o.kind, o.id, bytes, used, err)
		}
	}
}

// quota is that of the last opening. No workload lowers one below what is there.
func (j *judge) quota() (q engine.Quota) {
	for i := range j.ops {
		if op := &j.ops[i]; op.Kind == KindOpen {
			q = op.Quota
		}
	}
	return q
}

// compareScopes requires that references share a blob where they are of one scope and
// have the same bytes, and nowhere else.
func (j *judge) compareScopes() {
	const promise = "bytes are shared within their scope alone"
	type inScope struct {
		among   string
		content Content
	}
	whose, paths := map[string]string{}, map[inScope]string{} // by path; of bytes in a scope
	for id, e := range j.verdict.present {
		op := j.origin(&e)
		if op == nil || op.Scope == "" {
			continue
		}
		among := SharedAmong(true, op.Scope, &e.Metadata)
		if other, there := whose[e.Path]; there && (among == "" || among != other) {
			j.add(promise, op.Number, id, "it is of %q and shares %s with one of %q", among, e.Path, other)
		}
		whose[e.Path] = among
		at := inScope{among, op.Content}
		if path, there := paths[at]; there && among != "" && path != e.Path {
			j.add(promise, op.Number, id, "its bytes among %q are in %s and in %s", among, path, e.Path)
		}
		paths[at] = e.Path
	}
}

// origin is the operation that a label says a reference comes from; nil where it says
// none.
func (j *judge) origin(e *engine.Entry) *Op {
	n, err := strconv.ParseUint(e.Metadata.Labels[labelOp], 10, 64)
	if err != nil || n == 0 || n > uint64(len(j.ops)) {
		return nil
	}
	return &j.ops[n-1]
}
