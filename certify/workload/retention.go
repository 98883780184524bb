package workload

import (
	"context"
	"errors"
	"time"

	"github.com/mediabolt/mediabolt/engine"
)

// Policies of a workload end at times, or never, so that a judge knows them without a
// clock: long ago, long after, never.
const (
	policyPast   = "2001-01-01T00:00:00Z"
	policyFuture = "2900-01-01T00:00:00Z"
)

// errExpire is that an Expire has reported failures.
var errExpire = errors.New("references could not be ended")

// retain has policies given and changed, and references expire: the last of a blob, one
// of several, one that was due and was extended, some at once.
func (s *script) retain(ctx context.Context) {
	place := Place{Session: "retained", Conversation: "conversation"}
	due, later := place, place
	due.Policy, later.Policy = policyPast, policyFuture
	put := func(c Content, p Place) string {
		ref, _ := s.client.Put(ctx, c, p) // the journal has the error
		return ref
	}
	both, single := s.content(5000), s.content(3000)
	stays := put(both, place)
	put(both, due)
	put(single, due)
	rescued := put(s.content(2000), later)
	turned := put(s.content(1000), later)
	s.change(ctx, stays, policyFuture)
	s.change(ctx, rescued, policyPast)
	s.change(ctx, rescued, engine.PolicyForever)
	s.change(ctx, turned, policyPast)
	put(both, place) // so that the disk has seen more since
	_ = s.client.Expire(ctx)
	put(single, due)
	put(both, due)
	s.change(ctx, stays, engine.PolicyForever)
	atOnce(2, func(int) { _ = s.client.Expire(ctx) })
}

// change gives a reference another policy, if there is one.
func (s *script) change(ctx context.Context, ref, policy string) {
	if ref != "" {
		_ = s.client.Retain(ctx, ref, policy) // the journal has the error
	}
}

// expiryOf is when a reference with a policy of a workload expires.
func expiryOf(policy string) time.Time {
	at, err := time.Parse(time.RFC3339, policy)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

func isDue(policy string) bool {
	at := expiryOf(policy)
	return !at.IsZero() && at.Before(time.Now())
}

// setsPolicy says whether an operation has, or may have, given a policy to a
// reference. Those on one reference came one after the other.
func (o *Op) setsPolicy(ref string) bool {
	return o.Ref == ref && o.Outcome != OutcomeFailed && (o.isStore() || o.Kind == KindRetain)
}

// policy is the policy that the operation gives.
func (o *Op) policy() string {
	if o.Kind == KindRetain {
		return o.Policy
	}
	return o.Place.Policy
}

// policies are those that a reference may have.
func (j *judge) policies(op *Op, ref string) map[string]bool {
	may := map[string]bool{op.Place.Policy: true}
	for i := range j.ops {
		o := &j.ops[i]
		if o.Kind != KindRetain || !o.setsPolicy(ref) {
			continue
		}
		if !o.open() {
			clear(may)
		}
		may[o.Policy] = true
	}
	return may
}

// mayEnd says whether an Expire may have ended references. What a judgement has found an
// operation to be, it has been (see Settle); one that failed otherwise may have ended some.
func (o *Op) mayEnd() bool {
	return o.Kind == KindExpire && (o.Outcome != OutcomeFailed || o.Error != "")
}

// expired says whether a reference may have been ended by an Expire, and whether it
// must have been.
func (j *judge) expired(ref string) (may, must bool) {
	var sets []*Op
	for i := range j.ops {
		if j.ops[i].setsPolicy(ref) {
			sets = append(sets, &j.ops[i])
		}
	}
	for i, set := range sets {
		if !isDue(set.policy()) {
			continue
		}
		for e := range j.ops {
			if end := &j.ops[e]; end.mayEnd() {
				may = may || set.mayMeet(end, sets[i+1:])
				must = must || set.mustMeet(end, sets[i+1:])
			}
		}
	}
	return may, must
}

// mayMeet says whether an Expire may have found the policy in force.
func (o *Op) mayMeet(end *Op, later []*Op) bool {
	for _, next := range later {
		if next.Outcome == OutcomeAcknowledged && next.Ended < end.Begun {
			return false
		}
	}
	return end.open() || end.Ended >= o.Begun
}

// mustMeet says whether an acknowledged Expire has surely found the policy in force.
// Times that are equal tell nothing.
func (o *Op) mustMeet(end *Op, later []*Op) bool {
	if o.Outcome != OutcomeAcknowledged || end.Outcome != OutcomeAcknowledged || o.Ended >= end.Begun {
		return false
	}
	return len(later) == 0 || end.Ended < later[0].Begun
}

// sameRetention judges policy and expiry of a reference.
func (j *judge) sameRetention(op *Op, e *engine.Entry) {
	id := e.Reference.ID
	if !j.policies(op, id)[e.Metadata.Policy] {
		j.add("an acknowledged policy is there", op.Number, id, "it has policy %q", e.Metadata.Policy)
	}
	if want := expiryOf(e.Metadata.Policy); !e.ExpiresAt.Equal(want) {
		j.add("an expiry is that of its policy", op.Number, id, "policy %q, expires %v, want %v", e.Metadata.Policy, e.ExpiresAt, want)
	}
	if _, must := j.expired(id); must {
		j.add("what an acknowledged Expire has ended is gone", op.Number, id, "it is listed, with policy %q", e.Metadata.Policy)
	}
}

// goneByExpiry is the references that were acknowledged and have expired, as a judgement
// has found. The caller holds mu.
func (j *Journal) goneByExpiry(v *Verdict) []string {
	judge := &judge{ops: j.ops}
	var gone []string
	for i := range j.ops {
		op := &j.ops[i]
		if _, there := v.present[op.Ref]; !op.isStore() || op.Outcome != OutcomeAcknowledged || there {
			continue
		}
		if may, _ := judge.expired(op.Ref); may {
			gone = append(gone, op.Ref)
		}
	}
	return gone
}
