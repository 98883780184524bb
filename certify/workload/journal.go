package workload

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Kind is what an operation does.
type Kind string

// The kinds of operations.
const (
	KindOpen        Kind = "open"
	KindClose       Kind = "close"
	KindStore       Kind = "store"
	KindStoreReader Kind = "store-reader"
	KindDelete      Kind = "delete"
	KindRetain      Kind = "retain"
	KindExpire      Kind = "expire"
	KindHold        Kind = "hold"
	KindRelease     Kind = "release"
	// KindErase is the erasure of a session, whose references are deletions of their own.
	KindErase      Kind = "erase"
	KindReorganize Kind = "reorganize"
	// KindAdopt begins, syncs or ends an adoption. What is adopted is a store.
	KindAdopt   Kind = "adopt"
	KindCompact Kind = "compact"
	// KindLose removes or damages the index behind the store's back; a Rebuild makes it
	// anew.
	KindLose    Kind = "lose"
	KindRebuild Kind = "rebuild"
	// Other stores are made by these, beside the store.
	KindBackup  Kind = "backup"
	KindRestore Kind = "restore"
	KindExport  Kind = "export"
	KindImport  Kind = "import"
	// KindRefused is a deletion of what is held. It is acknowledged where it is
	// refused for that.
	KindRefused Kind = "refused"
	// KindLimited is a store that does not fit. It is acknowledged where a limit
	// has refused it.
	KindLimited Kind = "limited"
	// KindHarm removes or cuts the file of a blob behind the store's back. Until
	// a Store of the same bytes is acknowledged they may be damaged.
	KindHarm Kind = "harm"
)

// Outcome is what came of an operation.
type Outcome string

// The outcomes. An operation that has none is in flight: it may have happened
// or not.
const (
	OutcomeInFlight     Outcome = ""
	OutcomeAcknowledged Outcome = "acknowledged"
	OutcomeFailed       Outcome = "failed"   // and has not happened
	OutcomeDoubt        Outcome = "in doubt" // failed with ErrInDoubt: as good as in flight
)

// Place is the part of a reference's metadata that a workload sets.
type Place struct {
	Session      string `json:"session,omitempty"`
	Conversation string `json:"conversation,omitempty"`
	Run          string `json:"run,omitempty"`
	User         string `json:"user,omitempty"`
	Origin       string `json:"origin,omitempty"` // of what is adopted
	Policy       string `json:"policy,omitempty"`
}

// Held is a hold as a workload tells it from others.
type Held struct {
	Name string            `json:"name"`
	On   engine.HoldTarget `json:"on"`
}

// Op is one operation. In JSON it is one line of a journal.
type Op struct {
	Number  uint64  `json:"op"` // from 1 on, in the order in which operations begin
	Kind    Kind    `json:"kind"`
	Content Content `json:"content"` // of a store or a harm
	Place   Place   `json:"place"`   // of a store
	// Scope is among whom a store shares its bytes; empty: that is not judged.
	Scope engine.DedupScope `json:"scope,omitempty"`
	// Quota is that of an opening.
	Quota   engine.Quota `json:"quota,omitzero"`
	Ref     string       `json:"ref,omitempty"`
	Policy  string       `json:"policy,omitempty"` // of a retain
	Hold    Held         `json:"hold,omitzero"`    // of a hold or a release
	Part    uint64       `json:"part,omitempty"`   // number of the erasure that a delete is part of
	Digest  string       `json:"digest,omitempty"` // SHA-256 of the index that a lose has left, if any
	Begun   int64        `json:"begun"`            // by the journal's clock
	Ended   int64        `json:"ended,omitempty"`
	Outcome Outcome      `json:"outcome,omitempty"`
	Error   string       `json:"error,omitempty"`
}

func (o *Op) isStore() bool { return o.Kind == KindStore || o.Kind == KindStoreReader }

// stagedNames is under how many names the bytes of a store can be staged: a stream has
// one while its digest is not known, and then for a moment both.
func (o *Op) stagedNames() int64 {
	if o.Kind == KindStoreReader {
		return 2
	}
	return 1
}

// open says whether the operation may have happened or not.
func (o *Op) open() bool { return o.Outcome == OutcomeInFlight || o.Outcome == OutcomeDoubt }

// Journal records what a store was asked to do and what it said. It is safe
// for concurrent use. Written down, an operation is a line when it begins, and
// once more when it ends; the later line stands.
type Journal struct {
	mu    sync.Mutex // guards the rest
	clock func() int64
	out   io.Writer
	ops   []Op // that of number n at n-1
}

// NewJournal returns an empty journal. clock stamps beginnings and ends and
// must not run backwards; nil counts the stamps. Every line is written to out
// at once, unless that is nil.
func NewJournal(clock func() int64, out io.Writer) *Journal {
	j := &Journal{clock: clock, out: out}
	if clock == nil {
		count := int64(0) // guarded by mu, like every call of clock
		j.clock = func() int64 { count++; return count }
	}
	return j
}

// Begin records that an operation begins, and returns its number.
func (j *Journal) Begin(op Op) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	op.Number, op.Begun = uint64(len(j.ops)+1), j.clock()
	j.ops = append(j.ops, op)
	j.write(&op)
	return op.Number
}

// End records what came of an operation: the reference of a store, or an error.
func (j *Journal) End(number uint64, ref string, err error) {
	outcome := OutcomeAcknowledged
	switch {
	case errors.Is(err, storage.ErrInDoubt):
		outcome = OutcomeDoubt
	case err != nil:
		outcome = OutcomeFailed
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end(number, ref, outcome, err, j.clock())
}

// Refuse records that a limit has refused a store, which has not happened then.
func (j *Journal) Refuse(number uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end(number, "", OutcomeFailed, nil, j.clock())
}

// end is End at a given time. The caller holds mu.
func (j *Journal) end(number uint64, ref string, outcome Outcome, err error, at int64) {
	op := &j.ops[number-1]
	op.Outcome, op.Ended = outcome, at
	if ref != "" {
		op.Ref = ref
	}
	if err != nil {
		op.Error = err.Error()
	}
	j.write(op)
}

// write writes a line. An error is whoever reads them being gone, which has
// nothing to do with the store.
func (j *Journal) write(op *Op) {
	if j.out == nil {
		return
	}
	line, err := json.Marshal(op)
	if err != nil {
		panic(err) // an Op has nothing that JSON does not
	}
	_, _ = j.out.Write(append(line, '\n'))
}

// Read takes in lines that another journal has written, which began after this
// one's operations (see Skip). A last line without its end is dropped.
func (j *Journal) Read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := j.Add(line); err != nil {
			return err
		}
	}
}

// Add takes in one line, as Read does.
func (j *Journal) Add(line []byte) error {
	var op Op
	if err := json.Unmarshal(line, &op); err != nil {
		return fmt.Errorf("journal line %.200q: %w", line, err)
	}
	if op.Number == 0 {
		return fmt.Errorf("journal line %.200q: no operation's number", line)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := uint64(len(j.ops)); n < op.Number; n++ {
		j.ops = append(j.ops, Op{Number: n + 1, Outcome: OutcomeFailed})
	}
	j.ops[op.Number-1] = op
	return nil
}

// Skip makes operations begin with a number after n, which another journal
// has come to.
func (j *Journal) Skip(n uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := uint64(len(j.ops)); i < n; i++ {
		j.ops = append(j.ops, Op{Number: i + 1, Outcome: OutcomeFailed})
	}
}

// Ops are the operations so far, in order of their numbers. Those that Skip
// left out have no Kind.
func (j *Journal) Ops() []Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.ops)
}

// Failed are the operations that ended in an error.
func (j *Journal) Failed() []Op {
	return slices.DeleteFunc(j.Ops(), func(o Op) bool { return o.Error == "" })
}

// Cut is a journal of what had begun at a time, and of it as ended only what
// had ended: what a power cut at that moment leaves. It goes on with another
// clock.
func (j *Journal) Cut(at int64, clock func() int64) *Journal {
	cut := NewJournal(clock, nil)
	for _, op := range j.Ops() {
		switch {
		case op.Begun > at:
			op = Op{Number: op.Number, Outcome: OutcomeFailed}
		case op.Ended > at:
			op.Ended, op.Outcome, op.Error = 0, OutcomeInFlight, ""
			if op.isStore() {
				op.Ref = ""
			}
		}
		cut.ops = append(cut.ops, op)
	}
	return cut
}

// Write writes the journal as it stands, for Read.
func (j *Journal) Write(w io.Writer) error {
	lines := json.NewEncoder(w)
	for _, op := range j.Ops() {
		if err := lines.Encode(&op); err != nil {
			return err
		}
	}
	return nil
}
