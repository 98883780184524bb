package certify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// erasure is what an Erase is to end.
type erasure struct {
	dossier string // that is erased wholly, or noDossier
	refs    []kept // of what nobody acknowledged, the ID alone
}

// erase hears of an Erase that begins.
func (m *model) erase(n *note) {
	e := erasure{dossier: n.dossier}
	for _, id := range n.ids {
		p := m.live[id]
		delete(m.live, id)
		m.suspect[p.seed] = true
		e.refs = append(e.refs, kept{id, p})
	}
	m.erasing[n.op] = e
}

// eraseAll hears of an Erase that is decided.
func (m *model) eraseAll(op string) {
	e := m.erasing[op]
	delete(m.erasing, op)
	for _, k := range e.refs {
		m.dead[k.id] = true
	}
	if e.dossier != noDossier {
		m.erased[e.dossier] = true
	}
	m.count.Erased += int64(len(e.refs))
}

// begun hears of a process that has opened the store, and may delete some of what an
// erasure in flight has spared: so that is not any more there or gone as a whole.
func (m *model) begun() {
	for op, e := range m.erasing {
		for _, k := range e.refs {
			m.unsure[op+" "+k.id] = k
		}
	}
	clear(m.erasing)
}

// spared is a reference of an erasure in flight.
func (m *model) spared(id string) (kept, bool) {
	for _, e := range m.erasing {
		for _, k := range e.refs {
			if k.id == id && k.op != "" {
				return k, true
			}
		}
	}
	return kept{}, false
}

// holdChange is a Hold or Release, and what was known of the hold before: whether it
// was in force, if there was perhaps one.
type holdChange struct {
	hold
	must, may bool
}

// change hears of a Hold or Release that begins.
func (m *model) change(n *note) {
	must, may := m.holds[n.hold]
	m.changing[n.op] = holdChange{n.hold, must, may}
	switch {
	case n.verb == verbHold:
		m.holds[n.hold] = must
	case may:
		m.holds[n.hold] = false
	}
}

// refuseChange hears of a Hold or Release that has changed nothing.
func (m *model) refuseChange(op string) {
	c, changing := m.changing[op]
	switch {
	case !changing:
		return
	case c.may:
		m.holds[c.hold] = c.must
	default:
		delete(m.holds, c.hold)
	}
	delete(m.changing, op)
}

// resume has the store finish the erasures that are decided, so that what is compared
// does not change meanwhile.
func (j *judge) resume(ctx context.Context) error {
	if _, err := j.store.ResumeErasures(ctx); err != nil {
		return j.unlessBroken(ctx, ViolationErasure, err)
	}
	return nil
}

// erasures requires of each erasure in flight that all of its references are there or
// none. Where they are gone it was decided, and is done by now.
func (j *judge) erasures() {
	for op, e := range j.model.erasing {
		there := 0
		for _, k := range e.refs {
			if _, listed := j.entries[k.id]; listed {
				there++
			}
		}
		switch {
		case there > 0 && there < len(e.refs):
			j.report(ViolationErasure, "erasure %s: %d of its %d references are there", op, there, len(e.refs))
		case there == 0 && len(e.refs) > 0 && e.dossier != noDossier:
			j.model.erased[e.dossier] = true
		}
	}
}

// mostRefusals bounds how many deletions of what is held a judgement has refused.
const mostRefusals = 100

// holds compares the holds in force with the model, which then has these, and has the
// store refuse to delete what they are on.
func (j *judge) holds(ctx context.Context) error {
	there := map[hold]bool{}
	for h, err := range j.store.Holds(ctx) {
		if err != nil {
			return j.unlessBroken(ctx, ViolationHold, err)
		}
		known := hold{target: h.Target.ID, name: h.Name}
		if _, may := j.model.holds[known]; !may || known.on() != h.Target {
			j.report(ViolationHold, "hold %q on %s %s is in force: it was released, or refused, or never begun", h.Name, h.Target.Kind, h.Target.ID)
			continue
		}
		there[known] = true
	}
	for h, must := range j.model.holds {
		if must && !there[h] {
			j.report(ViolationHold, "hold %q on %s was acknowledged and is gone", h.name, h.target)
		}
	}
	j.model.holds = there
	return j.refuse(ctx, there)
}

func (j *judge) refuse(ctx context.Context, holds map[hold]bool) error {
	held := map[string]bool{}
	for h := range holds {
		held[h.target] = true
	}
	tried := 0
	for id := range j.entries {
		if !held[id] && !held[j.model.live[id].dossier()] {
			continue
		}
		err := j.store.Delete(ctx, &storage.StorageReference{ID: id})
		switch {
		case err == nil:
			j.report(ViolationHold, "reference %s was deleted while it is held", id)
			delete(j.model.live, id)
			delete(j.entries, id)
		case !errors.Is(err, storage.ErrHeld):
			return j.unlessBroken(ctx, ViolationHold, err)
		}
		if tried++; tried == mostRefusals {
			break
		}
	}
	return nil
}

// traceless requires that neither a path nor, in a full judgement, a sidecar there has
// the name of a dossier that was erased.
func (j *judge) traceless(path string, isDir bool) error {
	if len(j.model.erased) == 0 {
		return nil
	}
	text := path
	if j.full && !isDir && strings.HasSuffix(path, sidecarSuffix) {
		data, err := os.ReadFile(filepath.Join(j.dir, filepath.FromSlash(path)))
		if err != nil {
			return err
		}
		text += string(data)
	}
	for _, name := range dossierPattern.FindAllString(text, -1) {
		if j.model.erased[name] {
			j.report(ViolationErasure, "%s tells of %s, which was erased", path, name)
			break
		}
	}
	return nil
}
