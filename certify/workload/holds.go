package workload

import (
	"context"
	"maps"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// expectedHolds are the holds that operations, those on one hold one after the other,
// leave in force: true for those that must be, false for those that may.
func expectedHolds(ops []Op) map[Held]bool {
	holds := map[Held]bool{}
	for i := range ops {
		op := &ops[i]
		switch {
		case op.Kind != KindHold && op.Kind != KindRelease, op.Outcome == OutcomeFailed:
		case op.open():
			must, may := holds[op.Hold]
			if may || op.Kind == KindHold {
				holds[op.Hold] = must && op.Kind == KindHold
			}
		case op.Kind == KindHold:
			holds[op.Hold] = true
		default:
			delete(holds, op.Hold)
		}
	}
	return holds
}

// compareHolds compares the holds of the store with those of the journal, and has it
// refuse to delete what they are on.
func (j *judge) compareHolds(ctx context.Context, f *engine.FileStore) {
	j.verdict.holds = map[Held]bool{}
	for h, err := range f.Holds(ctx) {
		if err != nil {
			j.add("the holds can be listed", 0, "", "%v", err)
			return
		}
		j.verdict.holds[Held{h.Name, h.Target}] = true
	}
	left := maps.Clone(j.verdict.holds)
	for h, must := range expectedHolds(j.ops) {
		if must && !left[h] {
			j.add("an acknowledged hold is there", 0, "", "hold %q on %s %q is gone", h.Name, h.On.Kind, h.On.ID)
		}
		delete(left, h)
	}
	for h := range left {
		j.add("a hold that ended, failed or had not begun is gone", 0, "", "hold %q on %s %q is listed", h.Name, h.On.Kind, h.On.ID)
	}
	for id, e := range j.verdict.present {
		if !j.holds(id, &e) {
			continue
		}
		if err := refused(f.Delete(ctx, &storage.StorageReference{ID: id})); err != nil {
			j.add("what is held cannot be deleted", 0, id, "%v", err)
		}
	}
}

// holds says whether a hold that is listed is on a reference.
func (j *judge) holds(id string, e *engine.Entry) bool {
	for h := range j.verdict.holds {
		switch h.On {
		case engine.HoldTarget{Kind: engine.HoldReference, ID: id}, engine.HoldTarget{Kind: engine.HoldSession, ID: e.Metadata.SessionID}:
			return true
		}
	}
	return false
}
