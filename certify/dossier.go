package certify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// hold is a hold of a crew: its name, and the reference or dossier that it is on.
type hold struct{ target, name string }

// on is what the store is told that it is on.
func (h hold) on() engine.HoldTarget {
	if strings.HasPrefix(h.target, dossierPrefix) {
		return engine.HoldTarget{Kind: engine.HoldSession, ID: h.target}
	}
	return engine.HoldTarget{Kind: engine.HoldReference, ID: h.target}
}

// holdNames are the names of holds: of two on one target each ends by itself.
var holdNames = [...]string{"audit", "trial"}

// mostHolds is how many holds a worker has at most, so that it does not come to hold
// all that it has.
const mostHolds = 3

// holds says whether one of the worker's holds is on a reference.
func (w *worker) holds(k *kept) bool {
	return slices.ContainsFunc(w.held, func(h hold) bool { return h.target == k.id || h.target == k.dossier() })
}

// holdOrRelease begins or ends a hold.
func (w *worker) holdOrRelease() error {
	if len(w.held) > mostHolds || len(w.held) > 0 && w.r.IntN(2) == 0 {
		return w.release()
	}
	k := w.mine[w.r.IntN(len(w.mine))]
	h := hold{target: k.id, name: holdNames[w.r.IntN(len(holdNames))]}
	if d := k.dossier(); d != "" && w.r.IntN(2) == 0 {
		h.target = d
	}
	op := w.newOp()
	w.say(note{verb: verbHold, op: op, hold: h})
	if err := w.store.Hold(context.Background(), engine.Hold{Name: h.name, Target: h.on()}); err != nil {
		return w.refused(op, err)
	}
	w.say(note{verb: verbHeld, op: op})
	if !slices.Contains(w.held, h) {
		w.held = append(w.held, h)
	}
	return nil
}

func (w *worker) release() error {
	i := w.r.IntN(len(w.held))
	h := w.held[i]
	op := w.newOp()
	w.say(note{verb: verbRelease, op: op, hold: h})
	ended, err := w.store.Release(context.Background(), h.name, h.on())
	if err != nil {
		return w.refused(op, err)
	}
	if len(ended) != 1 {
		return fmt.Errorf("%w: hold %q on %s was in force, and %d were released", errBroken, h.name, h.target, len(ended))
	}
	w.say(note{verb: verbReleased, op: op})
	w.held = slices.Delete(w.held, i, i+1)
	return nil
}

// deleteHeld tries to delete what is held.
func (w *worker) deleteHeld(k *kept) error {
	err := w.store.Delete(context.Background(), &storage.StorageReference{ID: k.id})
	switch {
	case err == nil:
		return fmt.Errorf("%w: reference %s was deleted while it is held", errBroken, k.id)
	case errors.Is(err, storage.ErrHeld):
		w.say(note{verb: verbSpared})
		return nil
	}
	return err
}

// anyDossier is a dossier that the worker has references in, or empty.
func (w *worker) anyDossier() string {
	begin := w.r.IntN(len(w.mine))
	for i := range w.mine {
		if d := w.mine[(begin+i)%len(w.mine)].dossier(); d != "" {
			return d
		}
	}
	return ""
}

// erasers is how many workers may be erasing: one does, and one waits for it.
const erasers = 2

// eraseImpatience is the deadline of some erasures. What is decided by then goes on
// without them.
const eraseImpatience = 20 * time.Millisecond

// erase erases a dossier or one reference of it, all but what is held.
func (w *worker) erase() error {
	d := w.anyDossier()
	select {
	case w.erasing <- struct{}{}:
		defer func() { <-w.erasing }()
	default:
		return w.readMine()
	}
	if d == "" {
		return w.readMine()
	}
	q := engine.Query{SessionID: d}
	if w.r.IntN(3) == 0 {
		q.Labels = map[string]string{labelOp: w.memberOf(d).op}
	}
	var ends []string
	held := 0
	for i := range w.mine {
		k := &w.mine[i]
		switch {
		case k.dossier() != d || q.Labels != nil && q.Labels[labelOp] != k.op:
		case w.holds(k):
			held++
		default:
			ends = append(ends, k.id)
		}
	}
	wholly := q.Labels == nil && held == 0
	n := note{verb: verbErase, op: w.newOp(), dossier: noDossier, ids: ends}
	if wholly {
		n.dossier = d
	}
	w.say(n)
	return w.erased(n.op, q, ends, held, wholly)
}

// memberOf is one of the worker's references that are in a dossier.
func (w *worker) memberOf(d string) *kept {
	var members []int
	for i := range w.mine {
		if w.mine[i].dossier() == d {
			members = append(members, i)
		}
	}
	return &w.mine[members[w.r.IntN(len(members))]]
}

// erased erases by a query, which these references are to end by, and so many held
// ones to stay.
func (w *worker) erased(op string, q engine.Query, ends []string, held int, wholly bool) error {
	ctx := context.Background()
	if w.r.IntN(2) == 0 {
		hurried, cancel := context.WithTimeout(ctx, time.Duration(w.r.Int64N(int64(eraseImpatience))))
		defer cancel()
		ctx = hurried
	}
	e, err := w.store.Erase(ctx, q, engine.EraseOptions{By: "certify"})
	if err != nil && e.ID == "" {
		return w.refused(op, err)
	}
	w.mine = slices.DeleteFunc(w.mine, func(k kept) bool { return slices.Contains(ends, k.id) })
	if wholly && q.SessionID == w.dossier {
		w.dossier = ""
	}
	w.say(note{verb: verbErased, op: op})
	switch {
	case err != nil && errors.Is(err, context.DeadlineExceeded):
		return w.resume(held)
	case err != nil:
		return err
	case e.References != int64(len(ends)) || e.Failed != int64(held):
		return fmt.Errorf("%w: %d references were to be erased and %d are held: erased %d, failed %d: %v",
			errBroken, len(ends), held, e.References, e.Failed, e.Failures)
	}
	return nil
}

// resume sees what was decided through, or leaves it to others. What is held stays
// only as long as it is, so then it is not left.
func (w *worker) resume(held int) error {
	if held == 0 && w.r.IntN(4) != 0 {
		return nil
	}
	_, err := w.store.ResumeErasures(context.Background())
	return err
}
