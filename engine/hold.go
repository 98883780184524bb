package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mediabolt/mediabolt/storage"
)

// Hold keeps media from being deleted until it is released: a legal hold, a pin.
type Hold struct {
	// Name of the hold: at most MaxHoldName bytes, not empty. One name may be on
	// many targets, and a target may have many holds; only when the last of them is
	// released can it be deleted.
	Name string `json:"name"`
	// Target is what is held.
	Target HoldTarget `json:"target"`
	// Reason is free text for those who ask why, of at most MaxHoldReason bytes.
	Reason string `json:"reason,omitempty"`
	// By is who ordered the hold, at most MaxHoldBy bytes.
	By string `json:"by,omitempty"`
	// At is when, kept in UTC to the microsecond. Zero: the time of the call.
	At time.Time `json:"at"`
}

// HoldTarget is what a hold is on: one reference, or every reference that has an ID,
// those included that are stored later.
type HoldTarget struct {
	Kind HoldKind `json:"kind"`
	// ID is that of the reference (StorageReference.ID), session, conversation, run
	// or user.
	ID string `json:"id"`
}

// HoldKind is the kind of a HoldTarget; its values are stable.
type HoldKind string

const (
	HoldReference    HoldKind = "reference"
	HoldSession      HoldKind = "session"
	HoldConversation HoldKind = "conversation"
	HoldRun          HoldKind = "run"
	HoldUser         HoldKind = "user"
)

// Bounds of a hold's texts, in bytes of UTF-8. That of an ID is
// storage.MaxIDLength.
const (
	MaxHoldName   = 128
	MaxHoldReason = 4096
	MaxHoldBy     = 256
)

// Hold puts holds into force, all or none. When it has returned nil they are
// durable, and no deletion that begins later removes what they are on; one that was
// under way has come to its end before. A hold of the same name on the same target
// that is there already stays as it is, so a call can be repeated. A session, conversation,
// run or user need not have any references yet, a reference must be there. Errors:
// ErrInvalidHold, ErrInvalidRef, ErrNotFound, ErrInDoubt (then the holds are in force
// until the store is reopened, which tells), ErrCorrupted, ErrDiskSpace,
// ErrPermission, ErrIO, ErrClosed.
func (f *FileStore) Hold(ctx context.Context, list ...Hold) error {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.hold(ctx, slices.Clone(list)); err != nil {
		return fmt.Errorf("hold in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return nil
}

// Release ends the holds of a name on these targets, all or none, and returns those
// that it ended. One that is not there is a success, so a call can be repeated.
// Without a target it is ErrInvalidHold: see ReleaseAll. Other errors as with Hold;
// with ErrInDoubt the holds are in force until the store is reopened, which tells.
func (f *FileStore) Release(ctx context.Context, name string, targets ...HoldTarget) ([]Hold, error) {
	return f.release(ctx, name, func(s *store) ([]Hold, error) {
		if len(targets) == 0 {
			return nil, fmt.Errorf("%w: no target to release %q from", storage.ErrInvalidHold, name)
		}
		var found []Hold
		for _, t := range targets {
			if err := t.validate(); err != nil {
				return nil, err
			}
			if h, held := s.holds.on[t][name]; held && !slices.Contains(found, h) {
				found = append(found, h)
			}
		}
		return found, nil
	})
}

// ReleaseAll is Release from every target that a hold of that name is on.
func (f *FileStore) ReleaseAll(ctx context.Context, name string) ([]Hold, error) {
	return f.release(ctx, name, func(s *store) ([]Hold, error) {
		return s.holds.list(name), nil
	})
}

// release releases what find answers while the holds are locked.
func (f *FileStore) release(ctx context.Context, name string, find func(*store) ([]Hold, error)) ([]Hold, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	released, err := s.release(name, find)
	if err != nil {
		return nil, fmt.Errorf("release hold in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return released, nil
}

// Holds lists the holds that were in force at one moment, of these names or of all,
// in order of name, kind and ID. Where the journal of the holds is damaged what can
// still be read of it comes first, and then the error: ErrCorrupted, or ErrVersion.
func (f *FileStore) Holds(ctx context.Context, names ...string) iter.Seq2[Hold, error] {
	return func(yield func(Hold, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(Hold{}, err)
			return
		}
		defer leave()
		s.holds.mu.RLock()
		list, unknown := s.holds.list(names...), s.holds.unknown
		s.holds.mu.RUnlock()
		for i := range list {
			if !yield(list[i], nil) {
				return
			}
		}
		if unknown != nil {
			yield(Hold{}, fmt.Errorf("holds of %s: %w", s.cfg.BaseDir, unknown))
		}
	}
}

func (s *store) hold(ctx context.Context, list []Hold) error {
	at := now() // of all
	for i := range list {
		if err := list[i].normalize(at); err != nil {
			return err
		}
	}
	h := &s.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.writable(); err != nil {
		return err
	}
	var fresh []holdRecord
	for _, hold := range list {
		if err := s.findHeld(ctx, hold.Target); err != nil {
			return err
		}
		_, there := h.on[hold.Target][hold.Name]
		if !there && !slices.ContainsFunc(fresh, func(r holdRecord) bool { return r.Name == hold.Name && r.Target == hold.Target }) {
			fresh = append(fresh, holdRecord{Hold: hold})
		}
	}
	err := h.journal.append(fresh...)
	if err == nil || errors.Is(err, storage.ErrInDoubt) {
		h.apply(fresh...)
	}
	return err
}

// findHeld is an error where a hold is to be on a reference that is not there.
func (s *store) findHeld(ctx context.Context, t HoldTarget) error {
	if t.Kind != HoldReference {
		return nil
	}
	id, err := storage.ParseID(t.ID)
	if err != nil {
		return err
	}
	if _, _, err := s.index.Ref(ctx, id); err != nil {
		return fmt.Errorf("reference %s: %w", id, err)
	}
	return nil
}

func (s *store) release(name string, find func(*store) ([]Hold, error)) ([]Hold, error) {
	if err := checkHoldName(name); err != nil {
		return nil, err
	}
	h := &s.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.writable(); err != nil {
		return nil, err
	}
	found, err := find(s)
	if err != nil {
		return nil, err
	}
	ends := make([]holdRecord, len(found))
	for i := range found {
		ends[i] = holdRecord{Hold: Hold{Name: name, Target: found[i].Target, At: now()}, Released: true}
	}
	if err := h.journal.append(ends...); err != nil {
		return nil, err
	}
	h.apply(ends...)
	if err := h.compact(); err != nil {
		s.cfg.Logger.Warn("the journal of the holds stays as long as it is", "store", s.cfg.BaseDir, "error", err)
	}
	return found, nil
}

// list lists the holds of these names or, without one, all. The caller holds mu.
func (h *holds) list(names ...string) []Hold {
	var all []Hold
	for _, byName := range h.on {
		if len(names) == 0 {
			all = slices.AppendSeq(all, maps.Values(byName))
			continue
		}
		for name, hold := range byName {
			if slices.Contains(names, name) {
				all = append(all, hold)
			}
		}
	}
	slices.SortFunc(all, func(a, b Hold) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target.Kind, b.Target.Kind), cmp.Compare(a.Target.ID, b.Target.ID))
	})
	return all
}

// normalize fills in the time where there is none, and is ErrInvalidHold or ErrInvalidRef for what cannot
// be kept.
func (h *Hold) normalize(at time.Time) error {
	if err := checkHoldName(h.Name); err != nil {
		return err
	}
	if err := h.Target.validate(); err != nil {
		return err
	}
	if err := checkHoldText("reason", h.Reason, MaxHoldReason); err != nil {
		return err
	}
	if err := checkHoldText("by", h.By, MaxHoldBy); err != nil {
		return err
	}
	if strings.ContainsFunc(h.By, unicode.IsControl) {
		return fmt.Errorf("%w: by %q: holds a control character", storage.ErrInvalidHold, h.By)
	}
	if h.At.IsZero() {
		h.At = at
	}
	h.At = h.At.UTC().Truncate(time.Microsecond)
	if y := h.At.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("%w: at %v: year outside 1 to 9999 in UTC", storage.ErrInvalidHold, h.At)
	}
	return nil
}

func (t *HoldTarget) validate() error {
	switch t.Kind {
	case HoldReference:
		_, err := storage.ParseID(t.ID)
		return err
	case HoldSession, HoldConversation, HoldRun, HoldUser:
	default:
		return fmt.Errorf("%w: kind of target %.40q: want %s, %s, %s, %s or %s", storage.ErrInvalidHold, string(t.Kind),
			HoldReference, HoldSession, HoldConversation, HoldRun, HoldUser)
	}
	if t.ID == "" {
		return fmt.Errorf("%w: %s without an ID", storage.ErrInvalidHold, t.Kind)
	}
	return checkHoldText(string(t.Kind)+" ID", t.ID, storage.MaxIDLength)
}

func checkHoldName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it has no name", storage.ErrInvalidHold)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%w: name %.160q: holds a control character", storage.ErrInvalidHold, name)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%w: name %.160q: begins or ends with a space", storage.ErrInvalidHold, name)
	}
	return checkHoldText("name", name, MaxHoldName)
}

func checkHoldText(field, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s %.40q…: %d bytes, at most %d are kept", storage.ErrInvalidHold, field, s, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s %q: not valid UTF-8", storage.ErrInvalidHold, field, s)
	}
	return nil
}
