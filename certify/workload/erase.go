package workload

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// movedBlobs bounds the blobs that an erasure or a reorganization of a workload gives
// other paths; each owes two unlinks and a sidecar.
const movedBlobs = 64

// Erase erases a session, which has just these references. Each of them is a deletion
// of its own in the journal.
func (c *Client) Erase(ctx context.Context, session string, refs ...string) error {
	n := c.Journal.Begin(Op{Kind: KindErase, Place: Place{Session: session}})
	deletes := make([]uint64, len(refs))
	for i, ref := range refs {
		deletes[i] = c.Journal.Begin(Op{Kind: KindDelete, Ref: ref, Part: n})
	}
	e, err := c.Store.Erase(ctx, engine.Query{SessionID: session}, engine.EraseOptions{By: "workload"})
	if err == nil && e.Failed > 0 {
		err = errors.New(e.Failures[0].Reason)
	}
	if err != nil && e.ID != "" {
		err = errors.Join(storage.ErrInDoubt, err) // was decided, and goes on
	}
	for _, d := range deletes {
		c.Journal.End(d, "", err)
	}
	c.Journal.End(n, "", err)
	return err
}

// Reorganize moves all blobs to the organization that the store is open with.
func (c *Client) Reorganize(ctx context.Context) error {
	n := c.Journal.Begin(Op{Kind: KindReorganize})
	_, err := c.Store.Reorganize(ctx, engine.ReorganizeOptions{})
	c.Journal.End(n, "", err)
	return err
}

// RunMoves is a workload of erasures and reorganizations alone, so short that it can
// be cut after each of its events.
func RunMoves(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.erase)
	for _, mode := range []storage.OrganizationMode{storage.OrganizationByConversation, storage.OrganizationBySession} {
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true, Organization: mode}, func(ctx context.Context) {
			_ = s.client.Reorganize(ctx) // the journal has the error
		})
	}
	return ctx.Err()
}

// erase erases a session that has blobs of its own, shares some that lie in its
// directory and some that do not, and had others. It is in no other part.
func (s *script) erase(ctx context.Context) {
	doomed := Place{Session: "doomed", Conversation: "conversation"}
	other := Place{Session: "spared", Conversation: "conversation"}
	in, out, had := s.content(3000), s.content(3000), s.content(3000)
	refs := []string{s.put(ctx, s.content(3000), doomed), s.put(ctx, in, doomed)}
	s.put(ctx, in, other)
	s.put(ctx, out, other)
	refs = append(refs, s.put(ctx, out, doomed))
	before := s.put(ctx, had, doomed)
	s.put(ctx, had, other)
	s.delete(ctx, before)
	for _, ref := range refs {
		if ref == "" {
			return
		}
		s.forget(ref)
	}
	_ = s.client.Erase(ctx, doomed.Session, refs...) // the journal has the error
}

// finishErasures has the store finish what was decided, so that what is compared does
// not change meanwhile.
func (j *judge) finishErasures(ctx context.Context, f *engine.FileStore) {
	if _, err := f.ResumeErasures(ctx); err != nil {
		j.add("an erasure that was decided is finished", 0, "", "%v", err)
	}
}

// compareErasures requires of each erasure that all of its references are gone or
// none, and of those that are acknowledged that there is no trace of the session.
func (j *judge) compareErasures() {
	parts := map[uint64]map[bool]int{} // by erasure and whether it is there: references
	for i := range j.ops {
		op := &j.ops[i]
		if op.Part == 0 || op.Outcome == OutcomeFailed {
			continue
		}
		if parts[op.Part] == nil {
			parts[op.Part] = map[bool]int{}
		}
		_, there := j.verdict.present[op.Ref]
		parts[op.Part][there]++
	}
	for n, counts := range parts {
		if counts[true] > 0 && counts[false] > 0 {
			j.add("an erasure is decided wholly or not at all", n, "", "%d references are there, %d are not", counts[true], counts[false])
		}
	}
	for i := range j.ops {
		if op := &j.ops[i]; op.Kind == KindErase && op.Outcome == OutcomeAcknowledged {
			j.noTrace(op)
		}
	}
}

// noTrace requires that no name in the tree and no sidecar tells of an erased session.
func (j *judge) noTrace(op *Op) {
	err := fs.WalkDir(os.DirFS(j.target.Dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == layout.Dir {
			return fs.SkipDir
		}
		text := name
		if strings.HasSuffix(name, ".meta") {
			data, err := os.ReadFile(filepath.Join(j.target.Dir, filepath.FromSlash(name)))
			if err != nil {
				return err
			}
			text += string(data)
		}
		if strings.Contains(text, op.Place.Session) {
			j.add("an erasure leaves no trace", op.Number, "", "%s tells of session %q", name, op.Place.Session)
		}
		return nil
	})
	if err != nil {
		j.add("the tree can be walked", 0, "", "%v", err)
	}
}
