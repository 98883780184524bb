package certify

import (
	"fmt"
	"sync"

	"github.com/mediabolt/mediabolt/engine"
)

// model is what a store must hold, by what its crews have told. It is safe for
// concurrent use while crews work, and not while it is judged.
type model struct {
	mu sync.Mutex // guards the rest

	live     map[string]piece      // by reference ID: acknowledged, and not being deleted
	storing  map[string]uint64     // by operation: the seed of what was in flight
	deleting map[string]kept       // by operation: what may be gone; of what nobody acknowledged, the ID alone
	unsure   map[string]kept       // as deleting, but the calls have returned
	erasing  map[string]erasure    // by operation: what is gone or there as a whole
	holds    map[hold]bool         // true: in force; false: perhaps
	changing map[string]holdChange // by operation: a Hold or Release that was in flight
	terms    map[int]terms         // by round: how it shares bytes
	quota    engine.Quota          // of all rounds

	// Since the last judgement:
	changed map[string]bool // IDs that were stored
	dead    map[string]bool // IDs whose deletion was acknowledged
	suspect map[uint64]bool // seeds of what was or may have been deleted: what shares their bytes is to be read
	erased  map[string]bool // dossiers that were erased wholly, since the last full judgement

	count  Count
	broken []Violation // what crews told
	// hindrance is what a crew said keeps it from working; empty: nothing.
	hindrance string
	closed    bool // the last note was that the store was closed
}

// Count is how much was done.
type Count struct {
	Stored   int64 `json:"stored"`    // acknowledged
	Deleted  int64 `json:"deleted"`   // acknowledged
	Refused  int64 `json:"refused"`   // ended with an error: a deadline, or the closing of the store
	Limited  int64 `json:"limited"`   // stores that a quota, or free space, has refused
	Held     int64 `json:"held"`      // holds acknowledged
	Spared   int64 `json:"spared"`    // deletions that a hold has refused
	Erased   int64 `json:"erased"`    // references of acknowledged erasures
	Read     int64 `json:"read"`      // and compared byte for byte
	InFlight int64 `json:"in_flight"` // under way when a process was killed
}

func newModel() *model {
	return &model{
		live: map[string]piece{}, storing: map[string]uint64{}, deleting: map[string]kept{}, unsure: map[string]kept{},
		erasing: map[string]erasure{}, holds: map[hold]bool{}, changing: map[string]holdChange{}, terms: map[int]terms{},
		changed: map[string]bool{}, dead: map[string]bool{}, suspect: map[uint64]bool{}, erased: map[string]bool{},
	}
}

// hear takes in a note.
func (m *model) hear(n note) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = n.verb == verbClosed
	switch n.verb {
	case verbReady:
		m.begun()
	case verbStore:
		m.storing[n.op] = n.seed
	case verbStored:
		m.live[n.id] = piece{n.op, m.storing[n.op]}
		m.changed[n.id] = true
		delete(m.storing, n.op)
		m.count.Stored++
	case verbDelete:
		// What an earlier crew had in flight is not live, and yet may be there.
		p := m.live[n.id]
		delete(m.live, n.id)
		m.deleting[n.op] = kept{n.id, p}
		m.suspect[p.seed] = true
	case verbDeleted:
		m.dead[m.deleting[n.op].id] = true
		delete(m.deleting, n.op)
		m.count.Deleted++
	case verbUnsure:
		m.unsure[n.op] = m.deleting[n.op]
		delete(m.deleting, n.op)
	case verbRefused:
		m.refuse(n.op)
	case verbLimited:
		delete(m.storing, n.op)
		m.count.Limited++
	case verbHold, verbRelease:
		m.change(&n)
	case verbHeld:
		m.holds[m.changing[n.op].hold] = true
		delete(m.changing, n.op)
		m.count.Held++
	case verbReleased:
		delete(m.holds, m.changing[n.op].hold)
		delete(m.changing, n.op)
	case verbSpared:
		m.count.Spared++
	case verbErase:
		m.erase(&n)
	case verbErased:
		m.eraseAll(n.op)
	case verbRead:
		m.count.Read++
	case verbBroken:
		m.broken = append(m.broken, Violation{Kind: ViolationCall, Detail: n.text})
	case verbHindered:
		m.hindrance = n.text
	}
}

func (m *model) refuse(op string) {
	m.count.Refused++
	delete(m.storing, op)
	k, deleting := m.deleting[op]
	delete(m.deleting, op)
	if deleting {
		m.revive(k)
	}
	m.refuseChange(op)
	for _, k := range m.erasing[op].refs {
		m.revive(k)
	}
	delete(m.erasing, op)
}

// revive makes live again what was not deleted.
func (m *model) revive(k kept) {
	if k.op != "" {
		m.live[k.id] = k.piece
		m.changed[k.id] = true
	}
}

// inFlight is how many calls have neither returned nor been refused.
func (m *model) inFlight() int {
	return len(m.storing) + len(m.deleting) + len(m.changing) + len(m.erasing)
}

// killed counts what was under way when a process was killed.
func (m *model) killed(before int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.inFlight()
	m.count.InFlight += int64(now - before)
	return now
}

// settle finds a listed reference among what is live or was in flight, and
// makes it live. What it cannot be comes back as a violation.
func (m *model) settle(id, op string) (piece, *Violation) {
	if m.dead[id] {
		return piece{}, &Violation{Kind: ViolationResurrected, Detail: fmt.Sprintf("reference %s is listed after its deletion was acknowledged", id)}
	}
	if p, live := m.live[id]; live {
		return p, nil
	}
	for _, ends := range [...]map[string]kept{m.deleting, m.unsure} {
		for deletion, k := range ends {
			if k.id == id && k.op != "" {
				delete(ends, deletion)
				m.live[id] = k.piece
				m.changed[id] = true
				return k.piece, nil
			}
		}
	}
	if k, found := m.spared(id); found {
		m.revive(k)
		return k.piece, nil
	}
	seed, stored := m.storing[op]
	if !stored {
		return piece{}, &Violation{Kind: ViolationUnknown, Detail: fmt.Sprintf(
			"reference %s of operation %q is listed: it was deleted, or refused, or never stored", id, op)}
	}
	delete(m.storing, op)
	m.live[id] = piece{op, seed}
	m.changed[id] = true
	return m.live[id], nil
}

// judged forgets what was in flight, and begins anew to note changes. What an erasure
// has left is looked for in full judgements alone.
func (m *model) judged(full bool) {
	if full {
		clear(m.erased)
	}
	clear(m.erasing)
	clear(m.changing)
	clear(m.storing)
	clear(m.deleting)
	clear(m.unsure)
	clear(m.changed)
	clear(m.dead)
	clear(m.suspect)
}
