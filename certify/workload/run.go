// Package workload is what the proofs of crash safety let a store do, what they
// remember of it, and how they judge a store afterwards.
//
// A Journal records every operation when it begins and when it is acknowledged,
// with a time: for power cuts, how many writes and flushes the disk has seen.
// Cut turns it into what was known at an earlier time. Judge opens a store and
// compares it with a journal, byte for byte, without help from the store's own
// Verify, and then asks that too.
package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Run uses the store in target's directory, which need not exist, in every way
// that has a protocol of its own: it is created, gets new blobs, equal ones one
// after the other and at once, long streams; references are deleted, also the
// last of a blob, and twice; files vanish or are cut and are healed; policies are
// given and changed, and references expire; holds begin and end, and deletions are
// refused for them; a session is erased; content is adopted; it is closed and opened
// again, with and without deduplication and in every organization. The seed decides about contents and the order of the mixed
// part.
//
// What the store answers is in the journal; an operation that fails does not
// end the run. An error is ctx's.
func Run(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.first)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.heal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.hold)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.retain)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.erase)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, func(ctx context.Context) { s.adopt(ctx, true) })
	s.session(ctx, engine.FileStoreConfig{Organization: storage.OrganizationByRun}, s.single)
	s.session(ctx, engine.FileStoreConfig{Organization: storage.OrganizationFlat, EnableDeduplication: true, NoSyncFS: true}, s.mixed)
	s.session(ctx, engine.FileStoreConfig{Organization: storage.OrganizationByConversation, EnableDeduplication: true}, s.mixed)
	return ctx.Err()
}

// RunHolds is the part of Run that has holds alone, twice, so short that it can be
// cut after each of its events.
func RunHolds(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	for range 2 {
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.hold)
	}
	return ctx.Err()
}

// RunRetention is the part of Run that has policies and expiry alone, twice.
func RunRetention(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	for range 2 {
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.retain)
	}
	return ctx.Err()
}

// beforeCheckpoint is long enough for the checkpoint that follows a change
// within a second to begin and, on a slow disk, to end.
const beforeCheckpoint = 1300 * time.Millisecond

// longStream is more than a store keeps of a stream in memory, in bytes.
const longStream = 1<<20 + 4321

// script is a run.
type script struct {
	target  Target
	journal *Journal
	seed    uint64
	client  *Client

	mu   sync.Mutex // guards the rest
	rand *rand.Rand
	made uint64 // contents
	live []held // what the mixed parts may delete
}

func newScript(target Target, seed uint64, journal *Journal) *script {
	return &script{target: target, journal: journal, seed: seed, rand: rand.New(rand.NewPCG(seed, 1))}
}

// held is a reference that was acknowledged.
type held struct {
	ref     string
	content Content
}

// session opens the store, does something, and closes it.
func (s *script) session(ctx context.Context, config engine.FileStoreConfig, do func(context.Context)) {
	if ctx.Err() != nil {
		return
	}
	n := s.journal.Begin(Op{Kind: KindOpen, Quota: config.Quota})
	f, err := s.target.open(ctx, config)
	s.journal.End(n, "", err)
	if err != nil {
		return
	}
	s.client = &Client{Store: f, Journal: s.journal, Scope: config.DedupScope}
	do(ctx)
	_ = s.client.Close() // is in the journal
}

// content is bytes that no other call has got.
func (s *script) content(size int) Content {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	return Content{Seed: s.seed<<16 + s.made, Size: size}
}

// put stores content; ref is empty after an error.
func (s *script) put(ctx context.Context, c Content, p Place) (ref string) {
	ref, _ = s.client.Put(ctx, c, p) // the journal has the error
	return s.keep(ref, c)
}

func (s *script) putReader(ctx context.Context, c Content, p Place) (ref string) {
	ref, _ = s.client.PutReader(ctx, c, p) // the journal has the error
	return s.keep(ref, c)
}

func (s *script) keep(ref string, c Content) string {
	if ref != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.live = append(s.live, held{ref, c})
	}
	return ref
}

// delete deletes a reference, if there is one.
func (s *script) delete(ctx context.Context, ref string) {
	if ref == "" {
		return
	}
	s.forget(ref)
	_ = s.client.Delete(ctx, ref) // the journal has the error
}

// forget keeps a reference from being deleted by a mixed part.
func (s *script) forget(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.live {
		if s.live[i].ref == ref {
			s.live = append(s.live[:i], s.live[i+1:]...)
			return
		}
	}
}

// atOnce runs a function n times at once.
func atOnce(n int, do func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { do(i) })
	}
	group.Wait()
}

// first is the life of a store from its creation to a checkpoint and beyond.
func (s *script) first(ctx context.Context) {
	chat := Place{Session: "session 1", Conversation: "conversation 1"}
	other := Place{Session: "session 2"}
	a, b, c := s.content(5000), s.content(12345), s.content(9000)
	a1 := s.put(ctx, a, chat)
	b1 := s.put(ctx, b, chat)
	s.put(ctx, a, other)
	s.put(ctx, s.content(0), other)
	atOnce(2, func(int) { s.put(ctx, c, chat) })
	atOnce(6, func(i int) { s.put(ctx, s.content(3000*i+100), Place{Session: fmt.Sprint("group ", i)}) })
	s.putReader(ctx, s.content(longStream), chat)
	long := s.content(longStream)
	atOnce(2, func(int) { s.putReader(ctx, long, other) })
	s.delete(ctx, a1)
	s.delete(ctx, b1)
	wait(ctx, beforeCheckpoint)
	s.delete(ctx, b1)
	b2 := s.put(ctx, b, chat)
	s.put(ctx, a, chat)
	s.delete(ctx, b2)
}

// heal damages blobs and stores their bytes again. What the harm itself leaves
// after a power cut is the filesystem's affair.
func (s *script) heal(ctx context.Context) {
	place := Place{Session: "healed", Conversation: "conversation"}
	for _, size := range []int64{-1, 7, 0} {
		c := s.content(7000)
		ref := s.put(ctx, c, place)
		if ref == "" || s.client.harm(ctx, s.target.Dir, ref, c, size) != nil {
			continue
		}
		s.put(ctx, c, place)
		s.delete(ctx, ref)
	}
	wait(ctx, beforeCheckpoint)
	c := s.content(8000)
	if ref := s.put(ctx, c, place); ref != "" && s.client.harm(ctx, s.target.Dir, ref, c, -1) == nil {
		atOnce(2, func(int) { s.putReader(ctx, c, place) })
	}
}

// hold has holds begin and end, often enough for their journal to be made and made
// anew. One stays, and with it what it is on.
func (s *script) hold(ctx context.Context) {
	place := Place{Session: "held", Conversation: "conversation"}
	session := engine.HoldTarget{Kind: engine.HoldSession, ID: place.Session}
	kept, passing := Held{"kept", session}, Held{"passing", session}
	early, _ := s.client.Put(ctx, s.content(4000), place) // the journal has the error
	if s.client.Hold(ctx, kept) != nil {
		return
	}
	late, _ := s.client.Put(ctx, s.content(4000), place)
	pin := Held{"pin", engine.HoldTarget{Kind: engine.HoldReference, ID: early}}
	_ = s.client.Hold(ctx, pin)
	for range 2 {
		_ = s.client.Hold(ctx, passing)
		_ = s.client.Refused(ctx, early)
		_ = s.client.Refused(ctx, late)
		_ = s.client.Release(ctx, passing)
	}
	_ = s.client.Release(ctx, pin)
	_ = s.client.Refused(ctx, early)
}

// single is a time without deduplication.
func (s *script) single(ctx context.Context) {
	place := Place{Session: "single", Conversation: "conversation", Run: "run"}
	c := s.content(6000)
	first := s.put(ctx, c, place)
	s.put(ctx, c, place)
	atOnce(2, func(int) { s.put(ctx, c, Place{Run: "run"}) })
	long := s.putReader(ctx, s.content(longStream), place)
	s.delete(ctx, first)
	s.delete(ctx, long)
}

// mixers is how many callers a mixed part has at once, mixedSteps how many
// calls each makes.
const (
	mixers     = 4
	mixedSteps = 12
)

// mixed is calls of every kind at once, chosen by the seed.
func (s *script) mixed(ctx context.Context) {
	few := []Content{s.content(2000), s.content(4096), s.content(20000)}
	atOnce(mixers, func(i int) {
		s.mu.Lock()
		r := rand.New(rand.NewPCG(s.rand.Uint64(), uint64(i)))
		s.mu.Unlock()
		for range mixedSteps {
			place := Place{Session: fmt.Sprint("mixed ", r.IntN(3)), Conversation: fmt.Sprint("conversation ", r.IntN(2))}
			switch n := r.IntN(12); {
			case n < 3:
				s.put(ctx, few[r.IntN(len(few))], place)
			case n < 5:
				s.put(ctx, s.content(r.IntN(16<<10)), place)
			case n < 6:
				s.putReader(ctx, s.content(r.IntN(16<<10)), place)
			case n < 10:
				s.delete(ctx, s.any(r))
			case n < 11:
				s.change(ctx, s.any(r), []string{policyPast, policyFuture, engine.PolicyForever}[r.IntN(3)])
			default:
				_ = s.client.Expire(ctx)
			}
		}
	})
}

// any takes one of the live references away, or none.
func (s *script) any(r *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.live) == 0 {
		return ""
	}
	i := r.IntN(len(s.live))
	h := s.live[i]
	s.live = append(s.live[:i], s.live[i+1:]...)
	return h.ref
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
