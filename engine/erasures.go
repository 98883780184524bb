package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Journals of erasures, in the control directory: the ledger of those that are done,
// to which is only ever added, and those that are decided and not done, of which
// nothing is kept once they are.
const (
	erasuresFile = "erasures"
	erasingFile  = "erasing"
)

// erasuresRemedy is what to do about a journal of erasures that is damaged.
const erasuresRemedy = "nothing is erased until it is restored from a backup; moving it away gives up what it says"

// ErasedQuery is a query without the IDs, labels and digest that it asked for: what is
// left of them are salted hashes, by which whoever has an ID can tell whether it was
// the one.
type ErasedQuery struct {
	Salt string `json:"salt"` // 16 bytes in hexadecimal, of this erasure alone
	// Until is a UUID: references with a smaller one were meant.
	Until string `json:"until"`
	// Hashes: SHA-256 of the salt's bytes, the field's name, a NUL, and the value, in
	// hexadecimal; of a label the value is its key, a NUL and its value.
	Session      string   `json:"session_sha256,omitempty"`
	Conversation string   `json:"conversation_sha256,omitempty"`
	Run          string   `json:"run_sha256,omitempty"`
	User         string   `json:"user_sha256,omitempty"`
	Digest       string   `json:"digest_sha256,omitempty"`
	Labels       []string `json:"labels_sha256,omitempty"`

	Type        string    `json:"type,omitempty"`
	MimeType    string    `json:"mime_type,omitempty"`
	CreatedFrom time.Time `json:"created_from,omitzero"`
	CreatedTo   time.Time `json:"created_to,omitzero"`
	AddedFrom   time.Time `json:"added_from,omitzero"`
	AddedTo     time.Time `json:"added_to,omitzero"`
	SizeFrom    int64     `json:"size_from,omitempty"`
	SizeTo      int64     `json:"size_to,omitempty"`

	// Policy and expiry are as the erasure found them. A reference whose policy was
	// changed may have others in a backup.
	ExpiresFrom  time.Time `json:"expires_from,omitzero"`
	ExpiresTo    time.Time `json:"expires_to,omitzero"`
	NeverExpires bool      `json:"never_expires,omitempty"`
	Policy       string    `json:"policy_name,omitempty"`
}

func maskQuery(q *Query, until storage.UUID) ErasedQuery {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // is documented to never fail
	m := ErasedQuery{
		Salt: hex.EncodeToString(salt), Until: until.String(), Type: q.Type, MimeType: q.MimeType,
		CreatedFrom: q.CreatedFrom, CreatedTo: q.CreatedTo, AddedFrom: q.AddedFrom, AddedTo: q.AddedTo,
		SizeFrom: q.SizeFrom, SizeTo: q.SizeTo,
		ExpiresFrom: q.ExpiresFrom, ExpiresTo: q.ExpiresTo, NeverExpires: q.NeverExpires, Policy: q.Policy,
	}
	m.Session, m.Conversation = m.hash("session", q.SessionID), m.hash("conversation", q.ConversationID)
	m.Run, m.User = m.hash("run", q.RunID), m.hash("user", q.UserID)
	m.Digest = m.hash("digest", q.Digest.String())
	for key, value := range q.Labels {
		m.Labels = append(m.Labels, m.hash("label", key+"\x00"+value))
	}
	return m
}

// hash is empty for an empty value.
func (m *ErasedQuery) hash(field, value string) string {
	if value == "" {
		return ""
	}
	salt, _ := hex.DecodeString(m.Salt) // a salt that is none is as good as another
	sum := sha256.Sum256(append(append(salt, field...), append([]byte{0}, value...)...))
	return hex.EncodeToString(sum[:])
}

// Matches says whether an entry of a list is one that the erasure was about: also of
// a list of another store, as that of a backup.
func (m *ErasedQuery) Matches(e *Entry) bool {
	id, err := storage.ParseID(e.Reference.ID)
	until, err2 := parseUUID(m.Until)
	if err != nil || err2 != nil || string(id.UUID[:]) >= string(until[:]) {
		return false
	}
	d := &e.Metadata
	for _, f := range [...]struct{ want, field, value string }{
		{m.Session, "session", d.SessionID}, {m.Conversation, "conversation", d.ConversationID}, {m.Run, "run", d.RunID},
		{m.User, "user", d.UserID}, {m.Digest, "digest", e.Digest.String()},
	} {
		if f.want != "" && f.want != m.hash(f.field, f.value) {
			return false
		}
	}
	labels := map[string]bool{}
	for key, value := range d.Labels {
		labels[m.hash("label", key+"\x00"+value)] = true
	}
	for _, want := range m.Labels {
		if !labels[want] {
			return false
		}
	}
	rest := Query{
		Type: m.Type, MimeType: m.MimeType, CreatedFrom: m.CreatedFrom, CreatedTo: m.CreatedTo, SizeFrom: m.SizeFrom, SizeTo: m.SizeTo,
		ExpiresFrom: m.ExpiresFrom, ExpiresTo: m.ExpiresTo, NeverExpires: m.NeverExpires, Policy: m.Policy,
	}
	added := id.UUID.Time()
	return (m.AddedFrom.IsZero() || !added.Before(m.AddedFrom)) && (m.AddedTo.IsZero() || added.Before(m.AddedTo)) &&
		rest.lets(&storage.RefPair{
			Ref: storage.RefRow{Type: e.Type, MimeType: e.MimeType, Metadata: e.Metadata, ExpiresAt: e.ExpiresAt}, Blob: storage.BlobRow{Size: e.Size},
		})
}

// parseUUID is the inverse of UUID.String.
func parseUUID(s string) (storage.UUID, error) {
	id, err := storage.ParseID("000000-" + s)
	return id.UUID, err
}

// pendingErasure is an erasure that is decided and not done, or how far it is.
type pendingErasure struct {
	Erasure
	Until  storage.UUID `json:"until"`
	Wanted Query        `json:"wanted"`
}

// erasures is what was erased, and what is to be.
type erasures struct {
	// running, of capacity 1, is full while somebody erases, from the decision to
	// the end, or gives blobs other paths.
	running chan struct{}
	// some says that something was decided in this process or before: lines of
	// sidecars that are late may tell of it.
	some atomic.Bool

	mu      sync.Mutex // guards the rest; not held while references end
	ledger  *journal[Erasure]
	pending *journal[pendingErasure]
	open    []pendingErasure // that are decided and not done, the latest record of each
	unknown error            // why it is not known which those are

	recorded time.Time // when progress was

	quit   context.CancelFunc // ends the one that goes on in the background
	gone   sync.WaitGroup
	behind []Erasure // that it has finished, until somebody asks; read once it is gone
}

// openErasures reads what is pending. A store whose journals cannot be read still
// opens.
func (s *store) openErasures() {
	x := &s.erasures
	x.running = make(chan struct{}, 1)
	noSync, mode := s.cfg.Sync == SyncNone, s.cfg.FileMode
	x.ledger = &journal[Erasure]{root: s.ctl, name: erasuresFile, noSync: noSync, mode: mode, remedy: erasuresRemedy}
	x.pending = &journal[pendingErasure]{root: s.ctl, name: erasingFile, noSync: noSync, mode: mode, remedy: erasuresRemedy}
	done, stale := map[string]bool{}, false
	if x.unknown = x.ledger.open(); x.unknown == nil {
		x.unknown = x.ledger.read(func(e *Erasure) { done[e.ID] = true })
	}
	if x.unknown == nil {
		x.unknown = x.pending.open()
	}
	if x.unknown == nil {
		x.unknown = x.pending.read(func(p *pendingErasure) {
			if done[p.ID] {
				stale = true
			} else {
				x.put(*p)
			}
		})
	}
	x.some.Store(len(x.open) > 0)
	if x.unknown == nil && stale {
		// A crash came between the ledger and this: the query has the IDs.
		if err := x.pending.replace(x.open...); err != nil {
			s.cfg.Logger.Warn("the query of an erasure that is done stays for now", "store", s.cfg.BaseDir, "error", err)
		}
	}
	if x.unknown != nil {
		s.cfg.Logger.Error("nothing is erased, for it is not known what was", "store", s.cfg.BaseDir, "error", x.unknown)
	}
}

// alone waits until nobody else erases or moves, or for ctx to end.
func (x *erasures) alone(ctx context.Context) (done func(), err error) {
	select {
	case x.running <- struct{}{}:
		return func() { <-x.running }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// put takes in the latest record of a pending erasure.
func (x *erasures) put(p pendingErasure) {
	for i := range x.open {
		if x.open[i].ID == p.ID {
			x.open[i] = p
			return
		}
	}
	x.open = append(x.open, p)
}

// decide makes the decision for an erasure durable.
func (x *erasures) decide(p pendingErasure) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := errors.Join(x.unknown, x.ledger.unfit); err != nil {
		return err
	}
	x.recorded = time.Now()
	if err := x.pending.append(p); err != nil {
		return err
	}
	x.some.Store(true)
	x.put(p)
	return nil
}

// recordPause is the time between two records of how far an erasure is.
const recordPause = time.Second

// progress records now and then how far an erasure is, so that its counts outlive a
// crash.
func (x *erasures) progress(e *Erasure) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.recorded) < recordPause {
		return nil
	}
	// A full disk does not keep an erasure from making room.
	if err := x.record(e); err != nil && !errors.Is(err, storage.ErrDiskSpace) {
		return err
	}
	return nil
}

// stopped records how far an erasure is that somebody else will go on with.
func (x *erasures) stopped(e *Erasure) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.record(e)
}

// record is for who holds mu.
func (x *erasures) record(e *Erasure) error {
	x.recorded = time.Now()
	for _, p := range x.open {
		if p.ID == e.ID {
			p.Erasure = *e
			p.Failures = nil // may tell of IDs, and are found again
			x.put(p)
			return x.pending.append(p)
		}
	}
	return nil
}

// finish enters an erasure into the ledger and forgets that it was pending.
func (x *erasures) finish(e *Erasure) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	entry := *e
	entry.Failures = nil
	if err := x.ledger.append(entry); err != nil {
		return err
	}
	var left []pendingErasure
	for _, p := range x.open {
		if p.ID != e.ID {
			left = append(left, p)
		}
	}
	x.open = left
	return x.pending.replace(left...)
}

// Erasures lists the erasures of the store, those that are done in the order in which
// they were, then those that are not. Where a journal of them is damaged, what can
// still be read comes first, and then the error: ErrCorrupted or ErrVersion.
func (f *FileStore) Erasures(ctx context.Context) iter.Seq2[Erasure, error] {
	return func(yield func(Erasure, error) bool) {
		s, leave, err := f.enter(ctx)
		if err != nil {
			yield(Erasure{}, err)
			return
		}
		defer leave()
		all, err := s.erasures.all()
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Erasure{}, fmt.Errorf("erasures of %s: %w", s.cfg.BaseDir, err))
		}
	}
}

func (x *erasures) all() ([]Erasure, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []Erasure
	err := x.ledger.read(func(e *Erasure) { all = append(all, *e) })
	for _, p := range x.open {
		all = append(all, p.Erasure)
	}
	if x.unknown != nil {
		err = x.unknown
	}
	return all, err
}

// ResumeErasures does what is left to do of erasures that were decided, in this
// process or one before, and returns what they came to. An opening of the store does
// the same in the background, which this takes over: what was finished there since is
// returned too, once. One that cannot be done does not keep the others from it. progress
// is as EraseOptions.Progress. Errors are those of Erase.
func (f *FileStore) ResumeErasures(ctx context.Context, progress ...func(Erasure)) ([]Erasure, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer s.watch.tellCommits()
	var told func(Erasure)
	if len(progress) > 0 {
		told = func(e Erasure) {
			for _, tell := range progress {
				tell(e)
			}
		}
	}
	before := s.erasures.stop()
	done, err := s.resumeErasures(ctx, told)
	done = append(before, done...)
	if err != nil {
		return done, fmt.Errorf("erase in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return done, nil
}

func (s *store) resumeErasures(ctx context.Context, told func(Erasure)) ([]Erasure, error) {
	x := &s.erasures
	leave, err := x.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	x.mu.Lock()
	left, err := slices.Clone(x.open), x.unknown
	x.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var done []Erasure
	for i := range left {
		if ctx.Err() != nil {
			return done, errors.Join(err, ctx.Err())
		}
		p := left[i]
		p.Failed = 0
		run := erasing{s: s, query: &p.Wanted, until: p.Until, told: told, Erasure: p.Erasure, before: [2]int64{p.SharedBlobs, p.SharedBytes}}
		err = errors.Join(err, run.run(ctx))
		done = append(done, run.Erasure)
	}
	return done, err
}

// startErasures goes on in the background with what is pending.
func (s *store) startErasures() {
	x := &s.erasures
	var ctx context.Context
	ctx, x.quit = context.WithCancel(context.Background())
	if len(x.open) == 0 {
		return
	}
	s.cfg.Logger.Info("goes on with erasures that were not finished", "store", s.cfg.BaseDir, "erasures", len(x.open))
	x.gone.Go(func() {
		done, err := s.resumeErasures(ctx, nil)
		for i := range done {
			if !done[i].FinishedAt.IsZero() {
				x.behind = append(x.behind, done[i])
			}
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("an erasure stays unfinished", "store", s.cfg.BaseDir, "error", err)
		}
		s.watch.tellCommits()
	})
}

// stop ends what goes on in the background, and returns what that has finished, once.
func (x *erasures) stop() (finished []Erasure) {
	if x.quit == nil {
		return nil
	}
	x.quit()
	x.gone.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	finished, x.behind = x.behind, nil
	return finished
}

// erasures looks for damage in the journals of erasures.
func (v *verification) erasures() error {
	x := &v.s.erasures
	x.mu.Lock()
	damage := map[string]error{
		erasuresFile: x.ledger.read(func(*Erasure) {}), erasingFile: x.pending.read(func(*pendingErasure) {}),
	}
	if damage[erasuresFile] == nil {
		damage[erasuresFile] = x.unknown
	}
	x.mu.Unlock()
	for name, err := range damage {
		if err == nil {
			continue
		}
		if err := v.report(journalFinding(name, err)); err != nil {
			return err
		}
	}
	return nil
}
