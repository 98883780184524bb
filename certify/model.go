package certify

import (
	"fmt"
	"sync"
)

// model is what a store must hold, by what its crews have told. It is safe for
// concurrent use while crews work, and not while it is judged.
type model struct {
	mu sync.Mutex // guards the rest

	live     map[string]piece  // by reference ID: acknowledged, and not being deleted
	storing  map[string]uint64 // by operation: the seed of what was in flight
	deleting map[string]kept   // by operation: what may be gone; of what nobody acknowledged, the ID alone
	unsure   map[string]kept   // as deleting, but the calls have returned

	// Since the last judgement:
	changed map[string]bool // IDs that were stored
	dead    map[string]bool // IDs whose deletion was acknowledged
	suspect map[uint64]bool // seeds of what was or may have been deleted: what shares their bytes is to be read

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
	Read     int64 `json:"read"`      // and compared byte for byte
	InFlight int64 `json:"in_flight"` // under way when a process was killed
}

func newModel() *model {
	return &model{
		live: map[string]piece{}, storing: map[string]uint64{}, deleting: map[string]kept{}, unsure: map[string]kept{},
		changed: map[string]bool{}, dead: map[string]bool{}, suspect: map[uint64]bool{},
	}
}

// hear takes in a note.
func (m *model) hear(n note) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = n.verb == verbClosed
	switch n.verb {
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
	if deleting && k.op != "" {
		m.live[k.id] = k.piece
		m.changed[k.id] = true
	}
}

// killed counts what was under way when a process was killed.
func (m *model) killed(before int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := len(m.storing) + len(m.deleting)
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

// judged forgets what was in flight, and begins anew to note changes.
func (m *model) judged() {
	clear(m.storing)
	clear(m.deleting)
	clear(m.unsure)
	clear(m.changed)
	clear(m.dead)
	clear(m.suspect)
}
