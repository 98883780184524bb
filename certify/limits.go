package certify

import (
	"context"
	"math/rand/v2"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

// terms are how a round shares bytes.
type terms struct {
	dedup bool
	scope engine.DedupScope
}

// randomTerms are those of a round.
func randomTerms(r *rand.Rand) terms {
	scopes := engine.DedupScopes()
	return terms{dedup: r.IntN(4) != 0, scope: scopes[r.IntN(len(scopes))]}
}

// quotaOf is the quota of stores whose workers keep so many references each: now and
// then it refuses something, and mostly not. A part of it is for content that is
// spooled, which the smallest stores would never take otherwise.
func quotaOf(keep int) engine.Quota {
	n := int64(keep)
	return engine.Quota{TotalBytes: totalRoom + n*totalShare, UserBytes: userRoom + n*userShare, SessionBytes: sessionRoom + n*sessionShare}
}

// Bytes of a quota, and what comes to it for each reference that a worker keeps.
const (
	totalRoom, totalShare     = 16 << 20, 1 << 20
	userRoom, userShare       = 4 << 20, 280 << 10
	sessionRoom, sessionShare = 1200 << 10, 96 << 10
)

// begin tells the model of a round that begins.
func (m *model) begin(o *orders) {
	m.terms[o.Round] = terms{o.Dedup, o.Scope}
	m.quota = o.Quota
}

// among is whom a piece shares its bytes with, in words; empty: nobody. known is
// false where it is not known on which terms it was stored.
func (m *model) among(p piece) (among string, known bool) {
	round, known := p.round()
	t, told := m.terms[round]
	meta := p.metadata()
	return workload.SharedAmong(t.dedup, t.scope, &meta), known && told
}

// scopes requires that references share a blob where they are of one scope and have
// the same bytes, and nowhere else.
func (j *judge) scopes() {
	type inScope struct {
		among string
		seed  uint64
	}
	first := map[string]string{}  // by path: the first reference there
	paths := map[inScope]string{} // of bytes in a scope
	whose := map[string]string{}  // by path: among whom it is shared
	for id, e := range j.entries {
		p := j.model.live[id]
		among, known := j.model.among(p)
		if !known {
			continue
		}
		other, shared := first[e.Path]
		if shared && (among == "" || among != whose[e.Path]) {
			j.report(ViolationScope, "references %s, shared among %q, and %s, among %q, have one blob %s",
				other, whose[e.Path], id, among, e.Path)
		}
		first[e.Path], whose[e.Path] = id, among
		at := inScope{among, p.seed}
		if path, there := paths[at]; there && among != "" && path != e.Path {
			j.report(ViolationScope, "bytes of seed %d among %q are in %s and in %s", p.seed, among, path, e.Path)
		}
		paths[at] = e.Path
	}
}

// quotas requires that what is there is within the quota, which all rounds had.
func (j *judge) quotas() {
	var total int64
	counted := map[string]bool{}
	for _, e := range j.entries {
		if !counted[e.Path] {
			counted[e.Path] = true
			total += e.Size
		}
	}
	q := &j.model.quota
	if q.TotalBytes > 0 && total > q.TotalBytes {
		j.report(ViolationQuota, "blobs have %d bytes, the quota is %d", total, q.TotalBytes)
	}
	for b, bytes := range j.bytes() {
		limit := q.UserBytes
		if b.limit == engine.LimitSession {
			limit = q.SessionBytes
		}
		if limit > 0 && bytes > limit {
			j.report(ViolationQuota, "references of %s %q have %d bytes, the quota is %d", b.limit, b.id, bytes, limit)
		}
	}
}

// owner is a user or a session.
type owner struct {
	limit engine.Limit
	id    string
}

// bytes are the bytes of the references of each user and session.
func (j *judge) bytes() map[owner]int64 {
	sums := map[owner]int64{}
	for name := range j.model.erased {
		sums[owner{engine.LimitSession, name}] = 0
	}
	for _, e := range j.entries {
		sums[owner{engine.LimitUser, e.Metadata.UserID}] += e.Size
		sums[owner{engine.LimitSession, e.Metadata.SessionID}] += e.Size
	}
	delete(sums, owner{limit: engine.LimitUser})
	delete(sums, owner{limit: engine.LimitSession})
	return sums
}

// usage compares what the store counts against users, sessions and the total with the
// references. What it refuses must leave nothing, which totals would find.
func (j *judge) usage(ctx context.Context) error {
	if !j.probe {
		return nil
	}
	want := j.bytes()
	counted := map[string]bool{}
	total := owner{limit: engine.LimitTotal}
	want[total] = 0
	for _, e := range j.entries {
		if !counted[e.Path] {
			counted[e.Path] = true
			want[total] += e.Size
		}
	}
	for o, bytes := range want {
		used, err := workload.Used(ctx, j.store, o.limit, o.id)
		if err != nil {
			return j.unlessBroken(ctx, ViolationUsage, err)
		}
		if used != bytes {
			j.report(ViolationUsage, "the usage of %s %q is %d bytes, those of its references are %d", o.limit, o.id, used, bytes)
		}
	}
	return nil
}
