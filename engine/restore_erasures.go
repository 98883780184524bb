package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mediabolt/mediabolt/blobs"
)

// honourErasures erases in a restored store what the ledgers of others say was erased
// and its own does not know of: what was decided after the moment of its backup. They
// are entered into its ledger. It answers how many references ended.
func (f *FileStore) honourErasures(ctx context.Context, ledgers []string) (erased int64, err error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	wanted, err := s.unknownErasures(ledgers)
	if err != nil || len(wanted) == 0 {
		return 0, err
	}
	queries, err := f.unmask(ctx, wanted)
	if err != nil {
		return 0, err
	}
	done, err := s.erasures.alone(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	for i := range wanted {
		e := Erasure{ID: wanted[i].ID, By: wanted[i].By, Reason: wanted[i].Reason, DecidedAt: wanted[i].DecidedAt, Query: wanted[i].Query}
		if queries[i] == nil {
			e.FinishedAt = now() // nothing of it is here
			if err := s.erasures.finish(&e); err != nil {
				return erased, err
			}
			continue
		}
		until, err := parseUUID(e.Query.Until)
		if err != nil {
			return erased, err
		}
		run := erasing{s: s, query: queries[i], until: until, Erasure: e}
		err = run.run(ctx)
		erased += run.References
		if err != nil {
			return erased, err
		}
		if run.Failed > 0 {
			s.cfg.Logger.Warn("some of what was erased after the backup stays", "store", s.cfg.BaseDir, "erasure", e.ID,
				"failed", run.Failed, "first", run.Failures[0].Reason)
		}
	}
	return erased, nil
}

// unknownErasures are the erasures of other ledgers that the store's own lacks, each
// once.
func (s *store) unknownErasures(ledgers []string) ([]Erasure, error) {
	own, err := s.erasures.all()
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, e := range own {
		known[e.ID] = true
	}
	var unknown []Erasure
	for _, dir := range ledgers {
		err := readErasures(dir, func(e *Erasure) {
			if !known[e.ID] {
				known[e.ID] = true
				unknown = append(unknown, *e)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("what was erased in %s: %w", dir, err)
		}
	}
	return unknown, nil
}

// readErasures reads what was erased or is about to be in the store in a directory,
// which others may have open. One that is not there has erased nothing.
func readErasures(dir string, fn func(*Erasure)) error {
	ctl, err := os.OpenRoot(filepath.Join(dir, blobs.ControlDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	done := readJournal(ctl, erasuresFile, fn)
	pending := readJournal(ctl, erasingFile, func(p *pendingErasure) { fn(&p.Erasure) })
	return errors.Join(done, pending, ctl.Close())
}

// readJournal reads a journal of erasures of somebody else, and changes nothing.
func readJournal[R any](ctl *os.Root, name string, fn func(*R)) error {
	if _, err := ctl.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	j := journal[R]{root: ctl, name: name, remedy: erasuresRemedy, end: journalHead}
	return j.read(fn)
}

// unmask finds the queries of erasures: their IDs are those of any reference that one
// matches. Of an erasure that matches none it is nil.
func (f *FileStore) unmask(ctx context.Context, erasures []Erasure) ([]*Query, error) {
	queries := make([]*Query, len(erasures))
	for e, err := range f.List(ctx, Query{}) {
		if err != nil {
			return nil, err
		}
		for i := range erasures {
			if m := &erasures[i].Query; queries[i] == nil && m.Matches(&e) {
				queries[i] = m.unmask(&e)
			}
		}
	}
	return queries, nil
}

// unmask is the query of which m was made, as an entry that it matches shows.
func (m *ErasedQuery) unmask(e *Entry) *Query {
	q := &Query{
		Type: m.Type, MimeType: m.MimeType, CreatedFrom: m.CreatedFrom, CreatedTo: m.CreatedTo,
		AddedFrom: m.AddedFrom, AddedTo: m.AddedTo, SizeFrom: m.SizeFrom, SizeTo: m.SizeTo,
	}
	for _, f := range [...]struct {
		masked string
		into   *string
		id     string
	}{
		{m.Session, &q.SessionID, e.Metadata.SessionID}, {m.Conversation, &q.ConversationID, e.Metadata.ConversationID},
		{m.Run, &q.RunID, e.Metadata.RunID}, {m.User, &q.UserID, e.Metadata.UserID},
	} {
		if f.masked != "" {
			*f.into = f.id
		}
	}
	if m.Digest != "" {
		q.Digest = e.Digest
	}
	for key, value := range e.Metadata.Labels {
		if slices.Contains(m.Labels, m.hash("label", key+"\x00"+value)) {
			if q.Labels == nil {
				q.Labels = map[string]string{}
			}
			q.Labels[key] = value
		}
	}
	return q
}
