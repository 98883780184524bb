package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// holdsFile is the journal of the holds, in the control directory. It alone says
// what is held, so that holds outlive the index.
const holdsFile = "holds"

// holdsRemedy is what to do about a journal of holds that is damaged.
const holdsRemedy = "nothing is deleted until it is restored from a backup; moving it away gives up the holds in it"

// holdRecord is a record of the journal: a hold that begins, or one that ends.
type holdRecord struct {
	Hold
	Released bool `json:"released,omitempty"`
}

// holds is what is held. A reference that has no row is held by nothing.
type holds struct {
	// mu guards the rest. Who ends references shares it from the check until the
	// end is committed, and who changes holds takes it alone: so no check is older
	// than a hold that has come into force. No file of a blob is touched under it.
	mu      sync.RWMutex
	journal *journal[holdRecord]
	on      map[HoldTarget]map[string]Hold // by name
	live    int                            // holds in force
	records int                            // of the journal
	unknown error                          // why it is not known what is held: then nothing is deleted
}

// openHolds reads what is held. A store whose journal cannot be read still opens.
func (s *store) openHolds() {
	h := &s.holds
	h.on = map[HoldTarget]map[string]Hold{}
	h.journal = &journal[holdRecord]{root: s.ctl, name: holdsFile, noSync: s.cfg.Sync == SyncNone, mode: s.cfg.FileMode, remedy: holdsRemedy}
	h.unknown = h.journal.open()
	if h.unknown == nil {
		h.unknown = h.journal.read(func(r *holdRecord) { h.apply(*r) })
	}
	switch {
	case h.unknown != nil:
		s.cfg.Logger.Error("nothing is deleted, for it is not known what is held", "store", s.cfg.BaseDir, "error", h.unknown)
	case h.journal.unfit != nil:
		s.cfg.Logger.Warn("holds cannot be changed", "store", s.cfg.BaseDir, "error", h.journal.unfit)
	}
}

// apply does what records of the journal say. The caller holds mu alone.
func (h *holds) apply(records ...holdRecord) {
	for i := range records {
		r := &records[i]
		h.records++
		byName := h.on[r.Target]
		_, there := byName[r.Name]
		switch {
		case r.Released && there:
			h.live--
			if delete(byName, r.Name); len(byName) == 0 {
				delete(h.on, r.Target)
			}
		case !r.Released && !there:
			h.live++
			if byName == nil {
				byName = map[string]Hold{}
				h.on[r.Target] = byName
			}
			byName[r.Name] = r.Hold
		}
	}
}

// writable is nil where holds can be changed. The caller holds mu.
func (h *holds) writable() error { return errors.Join(h.unknown, h.journal.unfit) }

// compact leaves the holds that ended out of the journal once most of its records
// are of such. The caller holds mu alone.
func (h *holds) compact() error {
	if h.records <= 2*h.live {
		return nil
	}
	list := h.list()
	records := make([]holdRecord, len(list))
	for i := range list {
		records[i].Hold = list[i]
	}
	if err := h.journal.replace(records...); err != nil {
		return err
	}
	h.records = len(records)
	return nil
}

// known is an error where it is not known what is held.
func (h *holds) known() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.unknown
}

// removeUnheld is Index.Remove of a reference unless that is held. Every deletion
// goes through it or endUnheld, but for that of a Store that takes back its own
// reference.
func (s *store) removeUnheld(ctx context.Context, id storage.ID) (storage.Removal, error) {
	return s.unheld(ctx, id, func() (storage.Removal, error) { return s.index.Remove(ctx, id) })
}

// endUnheld is Index.End of a reference unless that is held.
func (s *store) endUnheld(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	return s.unheld(ctx, id, func() (storage.Removal, error) { return s.index.End(ctx, id, due) })
}

// unheld ends a reference by end unless it is held.
func (s *store) unheld(ctx context.Context, id storage.ID, end func() (storage.Removal, error)) (storage.Removal, error) {
	h := &s.holds
	h.mu.RLock()
	defer h.mu.RUnlock()
	switch {
	case h.unknown != nil:
		return storage.Removal{}, h.unknown
	case h.live > 0:
		ref, _, err := s.index.Ref(ctx, id)
		if err == nil {
			err = s.heldBy(&ref, id)
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return storage.Removal{}, err
		}
	}
	return end()
}

// heldBy is ErrHeld, naming hold and target, where a reference is held, and another
// error where that is not known. The caller holds holds.mu until the reference has
// ended.
func (s *store) heldBy(ref *storage.RefRow, id storage.ID) error {
	h := &s.holds
	if h.unknown != nil || h.live == 0 {
		return h.unknown
	}
	var first Hold
	more := -1
	for _, t := range targetsOf(ref, id) {
		for _, hold := range h.on[t] {
			if more++; more == 0 || hold.Target.Kind == first.Target.Kind && hold.Name < first.Name {
				first = hold
			}
		}
	}
	switch more {
	case -1:
		return nil
	case 0:
		return fmt.Errorf("%w: by hold %q on %s %q", storage.ErrHeld, first.Name, first.Target.Kind, first.Target.ID)
	}
	return fmt.Errorf("%w: by hold %q on %s %q, and %d more", storage.ErrHeld, first.Name, first.Target.Kind, first.Target.ID, more)
}

// targetsOf is what a hold on a reference may be on. No hold is on an empty ID.
func targetsOf(ref *storage.RefRow, id storage.ID) [5]HoldTarget {
	m := &ref.Metadata
	return [...]HoldTarget{
		{HoldReference, id.String()}, {HoldSession, m.SessionID}, {HoldConversation, m.ConversationID}, {HoldRun, m.RunID}, {HoldUser, m.UserID},
	}
}

// holds looks for damage in the journal of the holds.
func (v *verification) holds() error {
	h := &v.s.holds
	h.mu.RLock()
	err := h.journal.read(func(*holdRecord) {})
	if err == nil {
		err = h.unknown
	}
	h.mu.RUnlock()
	if err == nil {
		return nil
	}
	return v.report(journalFinding(holdsFile, err))
}

// journalFinding is what Verify says of a journal that is damaged.
func journalFinding(name string, err error) storage.Finding {
	return storage.Finding{Kind: storage.FindingJournal, Path: blobs.ControlDir + "/" + name, Detail: err.Error()}
}
