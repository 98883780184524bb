package engine_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// modelPolicies are the policies that the model uses, and how long each keeps: zero for
// ever. modelUntil is one more, which ends at a time.
var modelPolicies = map[string]time.Duration{
	"": 0, "retain": 0, "retain-1day": 24 * time.Hour, "delete-after-10min": 10 * time.Minute, "1h30m": 90 * time.Minute,
}

const modelUntil = "2026-03-01T05:00:00Z"

func modelExpiry(policy string, from time.Time) time.Time {
	after := modelPolicies[policy]
	switch {
	case policy == modelUntil:
		return time.Date(2026, 3, 1, 5, 0, 0, 0, time.UTC)
	case after == 0:
		return time.Time{}
	}
	return from.Add(after)
}

var drawPolicy = rapid.SampledFrom(append(slices.Sorted(maps.Keys(modelPolicies)), modelUntil))

// retain gives a new reference of the model its policy.
func (r *modelRef) retain(policy string, now time.Time) {
	r.meta.Policy, r.expires = policy, modelExpiry(policy, now)
}

// expire is what an Expire at a time does to the model.
func (m *model) expire(at time.Time) engine.Expired {
	var done engine.Expired
	for _, id := range slices.Sorted(maps.Keys(m.refs)) {
		ref := m.refs[id]
		switch blob := m.blobs[ref.blob]; {
		case ref.expires.IsZero() || ref.expires.After(at):
		case m.held(id):
			done.Held++
		default:
			size := int64(len(blob.data))
			done.References++
			done.LogicalBytes += size
			m.delete(id)
			if blob.refs == 0 {
				done.Blobs++
				done.FreedBytes += size
			}
		}
	}
	return done
}

func (m *machine) Retain(t *rapid.T) {
	id := m.drawRef(t)
	policy := drawPolicy.Filter(func(p string) bool { return p != "" }).Draw(t, "policy")
	e, err := m.store.Retain(context.Background(), &storage.StorageReference{ID: id}, policy)
	require.NoError(t, err)
	ref := m.model.refs[id]
	before := *ref
	ref.retain(policy, m.clock.now())
	if before.meta.Policy != policy || !before.expires.Equal(ref.expires) {
		ref.revision++
	}
	require.NoError(t, m.model.checkEntry(&e))
}

func (m *machine) Expire(t *rapid.T) {
	if rapid.Bool().Draw(t, "time passes") {
		m.clock.pass(time.Duration(rapid.Int64Range(0, int64(6*time.Hour)).Draw(t, "for")))
	}
	var foreseen engine.Expired
	dry := rapid.Bool().Draw(t, "dry run first")
	if dry {
		var err error
		foreseen, err = m.store.Expire(context.Background(), engine.ExpireOptions{DryRun: true})
		require.NoError(t, err)
	}
	done, err := m.store.Expire(context.Background(), engine.ExpireOptions{})
	require.NoError(t, err)
	require.Equal(t, m.model.expire(m.clock.now()), done)
	if dry {
		require.Equal(t, done, foreseen)
	}
}

// checkSidecars compares the sidecars of a closed store with the model.
func (m *model) checkSidecars(sidecar func(path string) map[string]*storage.RefRow) error {
	told := 0
	for _, blob := range m.blobs {
		for id, row := range sidecar(blob.path) {
			ref := m.refs[id]
			if ref == nil {
				return fmt.Errorf("sidecar of %s tells of %s, which the model does not have", blob.path, id)
			}
			if row.Metadata.Policy != ref.meta.Policy || !row.ExpiresAt.Equal(ref.expires) || row.Revision != ref.revision {
				return fmt.Errorf("sidecar of %s: reference %s: policy %q, expires %v, revision %d; want %q, %v, %d", blob.path, id,
					row.Metadata.Policy, row.ExpiresAt, row.Revision, ref.meta.Policy, ref.expires, ref.revision)
			}
			told++
		}
	}
	if told != len(m.refs) {
		return fmt.Errorf("sidecars tell of %d references, want %d", told, len(m.refs))
	}
	return nil
}
