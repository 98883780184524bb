package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Violation is a promise that a store did not keep.
type Violation struct {
	Promise string `json:"promise"`       // in a few words, stable
	Op      uint64 `json:"op,omitempty"`  // number of the operation it is about
	Ref     string `json:"ref,omitempty"` // ID of the reference it is about
	Detail  string `json:"detail"`        // what was found and what was expected
}

func (v Violation) String() string {
	s := v.Promise
	if v.Op != 0 {
		s += fmt.Sprintf(": operation %d", v.Op)
	}
	if v.Ref != "" {
		s += ": reference " + v.Ref
	}
	return s + ": " + v.Detail
}

// Verdict is what came of judging a store.
type Verdict struct {
	Violations []Violation
	// Recovered is what the opening had to look at.
	Recovered Recovered
	// Opened is when the store had been opened, by the journal's clock; 0 if it
	// could not be.
	Opened int64

	present map[string]engine.Entry // by the reference's ID
	holds   map[Held]bool           // that are in force
	seen    int64                   // when that was read, by the journal's clock; 0 if it was not
	closed  [2]int64                // begin and end of the Close that followed; 0 if there was none
}

// References is how many references there are.
func (v *Verdict) References() int { return len(v.present) }

// Recovered is what an opening had to look at, as it logs it.
type Recovered struct {
	Staged, Unlinks, SidecarLines int64
}

// judge is one judgement under way.
type judge struct {
	target  Target
	journal *Journal
	verdict Verdict
	opening recoveryLog

	ops     []Op
	byRef   map[string]*Op  // stores with a known reference
	deleted map[string]*Op  // deletes by reference; an acknowledged one wins
	harmed  map[Content]*Op // the last harm that no acknowledged store has healed
	damaged map[string]bool // paths of blobs that may be damaged
}

// Judge opens the store, compares it with what the journal says that it must,
// may and must not hold, and closes it; then it opens it once more, which must
// find nothing to do. Operations in flight are each to have happened wholly or
// not at all. An error is ctx's.
func Judge(ctx context.Context, target Target, journal *Journal) (*Verdict, error) {
	j := &judge{target: target, journal: journal, ops: journal.Ops(), byRef: map[string]*Op{},
		deleted: map[string]*Op{}, harmed: map[Content]*Op{}, damaged: map[string]bool{}}
	j.prepare()
	f, err := j.open(ctx)
	if err != nil {
		j.add("the store opens", 0, "", "%v", err)
		return &j.verdict, ctx.Err()
	}
	j.verdict.Opened = j.now()
	j.bounded()
	j.finishErasures(ctx, f)
	j.compare(ctx, f)
	j.compareHolds(ctx, f)
	j.compareOrigins(ctx, f)
	j.compareLimits(ctx, f)
	j.tree("after the opening")
	j.setAside()
	j.verify(ctx, f)
	j.verdict.closed[0] = j.now()
	if err := f.Close(); err != nil {
		j.add("the store closes", 0, "", "%v", err)
		return &j.verdict, ctx.Err()
	}
	j.verdict.closed[1] = j.now()
	j.compareErasures()
	j.again(ctx)
	j.copies(ctx)
	return &j.verdict, ctx.Err()
}

func (j *judge) add(promise string, op uint64, ref, format string, args ...any) {
	j.verdict.Violations = append(j.verdict.Violations, Violation{promise, op, ref, fmt.Sprintf(format, args...)})
}

func (j *judge) now() int64 {
	j.journal.mu.Lock()
	defer j.journal.mu.Unlock()
	return j.journal.clock()
}

// prepare sorts the operations by what they mean for the judgement.
func (j *judge) prepare() {
	for i := range j.ops {
		op := &j.ops[i]
		switch {
		case op.Outcome == OutcomeFailed:
		case op.Kind == KindDelete:
			if before := j.deleted[op.Ref]; before == nil || before.open() {
				j.deleted[op.Ref] = op
			}
		case op.Kind == KindHarm:
			j.harmed[op.Content] = op
		case op.isStore() && op.Outcome == OutcomeAcknowledged:
			j.byRef[op.Ref] = op
			delete(j.harmed, op.Content)
		}
	}
}

// open opens the store, and listens to what it says of its recovery.
func (j *judge) open(ctx context.Context) (*engine.FileStore, error) {
	j.opening = recoveryLog{}
	return j.target.open(ctx, engine.FileStoreConfig{
		EnableDeduplication: true, Quota: ProbeQuota, RebuildIndex: j.lost(), Logger: slog.New(&j.opening),
	})
}

// bounded judges the work of an opening. Debt is what came after the last
// Close. The removal of a staged name is itself made durable by the checkpoint
// after the one that removed it, so there may be one more session of those, not
// counting sessions that had none to make.
func (j *judge) bounded() {
	var debt, staged, last, due int64
	for i := range j.ops {
		switch op := &j.ops[i]; {
		case op.Kind == KindClose && op.Outcome == OutcomeAcknowledged:
			debt = 0
			if last > 0 {
				staged, last = last, 0
			}
		case op.isStore() || op.Kind == KindLimited:
			debt++
			staged += op.stagedNames()
			last += op.stagedNames()
		case op.Kind == KindDelete, op.Kind == KindRetain:
			debt++
		case op.Kind == KindExpire:
			debt += due
		case op.Kind == KindErase, op.Kind == KindReorganize, op.Kind == KindCompact:
			debt += 3 * movedBlobs
		}
		if p := j.ops[i].policy(); isDue(p) {
			due++
		}
	}
	r, found := j.opening.recovered()
	if !found {
		return
	}
	j.verdict.Recovered = r
	if r.Unlinks+r.SidecarLines > debt {
		j.add("opening is bounded by what was in flight", 0, "", "%d unlinks and %d sidecar lines, %d operations since the last close", r.Unlinks, r.SidecarLines, debt)
	}
	if r.Staged > staged {
		j.add("opening is bounded by what was in flight", 0, "", "%d staged files, %d could be of the stores since the last close but one", r.Staged, staged)
	}
}

// compare compares the references that the store has with those of the journal.
func (j *judge) compare(ctx context.Context, f *engine.FileStore) {
	present := map[string]engine.Entry{}
	for e, err := range f.List(ctx, engine.Query{}) {
		if err != nil {
			j.add("the references can be listed", 0, "", "%v", err)
			return
		}
		present[e.Reference.ID] = e
	}
	j.verdict.present, j.verdict.seen = present, j.now()
	for id, e := range present {
		op := j.owner(id, &e)
		if op == nil {
			continue
		}
		if _, harmed := j.harmed[op.Content]; harmed {
			j.damaged[e.Path] = true
		}
		j.sameMetadata(op, &e)
		j.sameBytes(ctx, f, op, &e)
	}
	for id, op := range j.byRef {
		_, there := present[id]
		if d := j.deleted[id]; d != nil || there {
			continue
		}
		if may, _ := j.expired(id); may {
			continue
		}
		j.add("an acknowledged reference is there", op.Number, id, "it is gone")
	}
	for id, op := range j.deleted {
		_, err := f.Stat(ctx, &storage.StorageReference{ID: id})
		if op.Outcome == OutcomeAcknowledged && !errors.Is(err, storage.ErrNotFound) {
			j.add("an acknowledged delete is gone", op.Number, id, "Stat answers: %v", err)
		}
	}
	j.counts(ctx, f)
}

// owner is the operation that a reference comes from; nil, and a violation, if
// there is none that may have left it.
func (j *judge) owner(id string, e *engine.Entry) *Op {
	if d := j.deleted[id]; d != nil && d.Outcome == OutcomeAcknowledged {
		j.add("an acknowledged delete is gone", d.Number, id, "it is listed")
		return nil
	}
	if op := j.byRef[id]; op != nil {
		return op
	}
	op := j.origin(e)
	if op == nil {
		j.add("every reference was stored", 0, id, "its label says operation %q", e.Metadata.Labels[labelOp])
		return nil
	}
	if !op.isStore() || !op.open() {
		j.add("a store that failed or had not begun leaves nothing", op.Number, id, "it is listed; the operation is: %s %s %s", op.Kind, op.Outcome, op.Ref)
		return nil
	}
	return op
}

func (j *judge) sameMetadata(op *Op, e *engine.Entry) {
	want := metadata(op.Number, op.Place)
	j.sameRetention(op, e)
	want.Policy = e.Metadata.Policy
	if want.CreatedAt.IsZero() {
		want.CreatedAt = e.Metadata.CreatedAt
	}
	if fmt.Sprint(e.Metadata) != fmt.Sprint(want) || e.MimeType != mimeType || e.Size != int64(op.Content.Size) {
		j.add("metadata is as it was stored", op.Number, e.Reference.ID, "got %v %s %d bytes, stored %v %s %d bytes",
			e.Metadata, e.MimeType, e.Size, want, mimeType, op.Content.Size)
	}
	if e.Metadata.CreatedAt.IsZero() {
		j.add("metadata is as it was stored", op.Number, e.Reference.ID, "it has no time")
	}
}

func (j *judge) sameBytes(ctx context.Context, f *engine.FileStore, op *Op, e *engine.Entry) {
	got, err := read(ctx, f, e.Reference.ID)
	if err != nil {
		if !j.damaged[e.Path] || !errors.Is(err, storage.ErrCorrupted) {
			j.add("bytes are as they were stored", op.Number, e.Reference.ID, "%v", err)
		}
		return
	}
	if want := op.Content.Bytes(); !bytes.Equal(got, want) {
		j.add("bytes are as they were stored", op.Number, e.Reference.ID, "%d bytes came without an error and are not the %d of seed %d", len(got), len(want), op.Content.Seed)
	}
}

func read(ctx context.Context, f *engine.FileStore, id string) (data []byte, err error) {
	b, err := f.Open(ctx, &storage.StorageReference{ID: id})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return io.ReadAll(b)
}

// counts compares refcounts and totals with the references that are listed.
func (j *judge) counts(ctx context.Context, f *engine.FileStore) {
	var want engine.Stats
	refs := map[string]int64{}
	for _, e := range j.verdict.present {
		if refs[e.Path]++; refs[e.Path] == 1 {
			want.Blobs++
			want.PhysicalBytes += e.Size
		}
		want.References++
		want.LogicalBytes += e.Size
	}
	for id, e := range j.verdict.present {
		if e.Refs != refs[e.Path] {
			j.add("refcounts are the numbers of references", 0, id, "refcount %d, %d references", e.Refs, refs[e.Path])
		}
	}
	got, err := f.Stats(ctx)
	if err != nil {
		j.add("totals are those of the references", 0, "", "%v", err)
		return
	}
	want.SavedBytes, want.IndexBytes, want.Healed = want.LogicalBytes-want.PhysicalBytes, got.IndexBytes, got.Healed
	got.Latencies = engine.Latencies{}
	if got != want {
		j.add("totals are those of the references", 0, "", "the store says %+v, the references are %+v", got, want)
	}
}

// verify asks the store's own verification, which also has bbolt check its
// pages.
func (j *judge) verify(ctx context.Context, f *engine.FileStore) {
	for finding, err := range f.Verify(ctx, engine.VerifyOptions{}) {
		switch {
		case err != nil:
			j.add("the verification finds nothing", 0, finding.Ref, "%v", err)
		case !j.damaged[finding.Path]:
			j.add("the verification finds nothing", 0, finding.Ref, "%s: %s: %s", finding.Kind, finding.Path, finding.Detail)
		}
	}
}

// again opens the closed store once more.
func (j *judge) again(ctx context.Context) {
	f, err := j.open(ctx)
	if err != nil {
		j.add("a closed store opens", 0, "", "%v", err)
		return
	}
	if r, found := j.opening.recovered(); found {
		j.add("a closed store has nothing to recover", 0, "", "%+v", r)
	}
	count := 0
	for e, err := range f.List(ctx, engine.Query{}) {
		if err != nil {
			j.add("the references can be listed", 0, "", "the second time: %v", err)
			break
		}
		if _, before := j.verdict.present[e.Reference.ID]; !before {
			j.add("opening again changes nothing", 0, e.Reference.ID, "it was not listed before")
		}
		count++
	}
	if count != len(j.verdict.present) {
		j.add("opening again changes nothing", 0, "", "%d references, %d before", count, len(j.verdict.present))
	}
	j.tree("after opening it again")
	if err := f.Close(); err != nil {
		j.add("the store closes", 0, "", "the second time: %v", err)
	}
}

// Settle makes the operations in flight what a judgement has found them to be:
// from then on that must stay so.
func (j *Journal) Settle(v *Verdict) {
	if v.seen == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	expired := j.goneByExpiry(v)
	stored := map[string]string{}
	for id, e := range v.present {
		stored[e.Metadata.Labels[labelOp]] = id
	}
	for i := range j.ops {
		op := &j.ops[i]
		if !op.open() {
			continue
		}
		outcome, ref := OutcomeFailed, ""
		switch {
		case op.isStore():
			ref = stored[strconv.FormatUint(op.Number, 10)]
			if ref != "" {
				outcome = OutcomeAcknowledged
			}
		case op.Kind == KindDelete:
			if _, there := v.present[op.Ref]; !there {
				outcome = OutcomeAcknowledged
			}
		case op.Kind == KindRetain:
			if e, there := v.present[op.Ref]; !there || e.Metadata.Policy == op.Policy {
				outcome = OutcomeAcknowledged
			}
		case op.Kind == KindHold || op.Kind == KindRelease:
			if v.holds[op.Hold] == (op.Kind == KindHold) {
				outcome = OutcomeAcknowledged
			}
		case op.Kind == KindHarm, op.Kind == KindRefused, op.Kind == KindLimited, op.Kind == KindReorganize, op.Kind == KindAdopt,
			op.Kind == KindCompact, op.Kind == KindRebuild, op.isCopy():
			outcome = OutcomeAcknowledged
		}
		j.end(op.Number, ref, outcome, nil, v.seen)
	}
	for _, ref := range expired { // from now on they are deleted
		j.ops = append(j.ops, Op{Number: uint64(len(j.ops) + 1), Kind: KindDelete, Ref: ref, Begun: v.seen})
		j.end(uint64(len(j.ops)), "", OutcomeAcknowledged, nil, v.seen)
	}
	if v.closed[1] != 0 {
		j.ops = append(j.ops, Op{Number: uint64(len(j.ops) + 1), Kind: KindClose, Begun: v.closed[0]})
		j.end(uint64(len(j.ops)), "", OutcomeAcknowledged, nil, v.closed[1])
	}
}
