package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// maxMoves bounds the blobs that are moved together, and so share their syncs.
const maxMoves = 64

// relocation is a blob that is to get another path.
type relocation struct {
	key      storage.BlobKey
	from, to string // paths
	mode     storage.OrganizationMode
}

// move gives blobs other paths, at most maxMoves at once. In every state that a
// crash can leave, the file is where the row says, and what else there is is owed as
// an unlink:
//
//	owe the new path as an unlink
//	link the file to it, and make that durable
//	commit: the row has the new path; the old one is owed, the new one not any more
//	write the sidecar of the new path, and make that durable
//	remove the files of the old one
//
// A blob that is gone, has another path than from, or has the one that it is to get, is
// left out. The errors, in the order of the list, say of each other one what went wrong:
// nil, ErrCorrupted where its file is not as its row says, or what failed; it has its
// old path then, except with ErrInDoubt.
func (s *store) move(ctx context.Context, list []relocation) []error {
	m := mover{s: s, list: list, failed: make([]error, len(list))}
	unlock, err := m.lock(ctx)
	if err == nil {
		err = m.prepare(ctx)
	}
	if err != nil {
		unlock()
		for i := range m.failed {
			m.failed[i] = errors.Join(m.failed[i], err)
		}
		return m.failed
	}
	after := context.WithoutCancel(ctx)
	m.commit(after)
	unlock()
	for i := range list {
		switch old := (storage.BlobRow{Key: list[i].key, Path: list[i].from}); {
		case !m.moved[i]:
		case m.unsettled:
			s.ledger.oweUnlink(owedUnlink{key: old.Key, path: old.Path})
		default:
			s.payRemoval(after, storage.UUID{}, &storage.Removal{Last: true, Blob: old})
		}
	}
	return m.failed
}

// mover is one run of move.
type mover struct {
	s      *store
	list   []relocation
	failed []error
	linked []bool // the file has its new path
	moved  []bool // the row has it
	// unsettled says that the new sidecars could not be made durable: the old ones stay
	// for now.
	unsettled bool
}

// lock takes the locks of all keys, in order, so that two who move never wait for
// each other.
func (m *mover) lock(ctx context.Context) (unlock func(), err error) {
	keys := make([]storage.BlobKey, len(m.list))
	for i := range m.list {
		keys[i] = m.list[i].key
	}
	slices.Sort(keys)
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, key := range slices.Compact(keys) {
		u, err := m.s.keys.lock(ctx, key)
		if err != nil {
			return unlock, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}

// prepare gives the files their new paths, durably, beside the old ones. An error
// leaves all as it was.
func (m *mover) prepare(ctx context.Context) error {
	m.linked, m.moved = make([]bool, len(m.list)), make([]bool, len(m.list))
	var owed storage.Debt
	var ready []int
	since := m.s.ledger.failed.Load()
	for i := range m.list {
		r := &m.list[i]
		stands, err := m.stands(ctx, r)
		if err != nil {
			m.failed[i] = err
		}
		if !stands {
			continue
		}
		ready = append(ready, i)
		owed.Unlinks = append(owed.Unlinks, storage.Unlink{Path: r.to})
	}
	if len(ready) == 0 {
		return nil
	}
	if err := m.s.index.Owe(ctx, owed); err != nil {
		return err
	}
	for _, i := range ready {
		m.failed[i] = m.link(ctx, &m.list[i])
		m.linked[i] = m.failed[i] == nil
	}
	err := m.s.settle(ctx, since)
	if err == nil {
		err = m.s.faults.reach(ctx, faultLinked)
	}
	for _, i := range ready {
		if err != nil || !m.linked[i] {
			m.undo(context.WithoutCancel(ctx), &m.list[i])
		}
	}
	return err
}

// stands says whether a blob still has its old path, and its file there. One whose new
// path is the same is no move: what undoes one would remove its file.
func (m *mover) stands(ctx context.Context, r *relocation) (bool, error) {
	row, err := m.s.index.Blob(ctx, r.key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && (row.Path != r.from || row.Path == r.to) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	size, err := m.s.blobs.Size(ctx, r.from)
	if err == nil && size != row.Size {
		err = fmt.Errorf("%w: file %s has %d bytes, its row says %d", storage.ErrCorrupted, r.from, size, row.Size)
	} else if errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%w: %w", storage.ErrCorrupted, err)
	}
	return err == nil, err
}

func (m *mover) link(ctx context.Context, r *relocation) error {
	done, err := m.s.blobs.Prepare(ctx, r.to)
	if err != nil {
		return err
	}
	err = m.s.blobs.Link(ctx, r.from, r.to)
	done(err == nil)
	return err
}

// undo removes what stands at a new path that no row has got.
func (m *mover) undo(ctx context.Context, r *relocation) {
	if err := m.s.blobs.Remove(ctx, "", r.to); err != nil {
		m.s.cfg.Logger.Warn("a second name of a blob stays for now", "store", m.s.cfg.BaseDir, "path", r.to, "error", err)
		m.s.ledger.oweUnlink(owedUnlink{path: r.to})
		return
	}
	m.s.ledger.payUnlink(r.to)
}

// commit gives the rows their new paths, and writes the sidecars there.
func (m *mover) commit(ctx context.Context) {
	rows := make([]storage.BlobRow, len(m.list))
	parallel(len(m.list), func(i int) {
		if r := &m.list[i]; m.linked[i] {
			rows[i], m.failed[i] = m.s.index.Move(ctx, r.key, r.to, r.mode)
		}
	})
	for i := range m.list {
		switch {
		case !m.linked[i], errors.Is(m.failed[i], storage.ErrInDoubt):
		case errors.Is(m.failed[i], storage.ErrNotFound): // the blob has gone meanwhile
			m.failed[i] = nil
			m.undo(ctx, &m.list[i])
		case m.failed[i] != nil:
			m.undo(ctx, &m.list[i])
		default:
			m.moved[i] = true
		}
	}
	m.writeSidecars(ctx, rows)
}

// writeSidecars writes the whole sidecars of blobs that have moved, or leaves them owed.
// They are made durable together: until then the debt stands for them, so that they may
// be written without a sync each.
func (m *mover) writeSidecars(ctx context.Context, rows []storage.BlobRow) {
	failed := make([]error, len(rows))
	since := m.s.ledger.failed.Load()
	parallel(len(rows), func(i int) {
		if !m.moved[i] {
			return
		}
		if failed[i] = m.s.faults.reach(ctx, faultMoved); failed[i] == nil {
			failed[i] = m.s.replaceSidecar(ctx, &rows[i], false)
		}
	})
	err := m.s.settle(ctx, since)
	m.unsettled = err != nil
	for i := range rows {
		if !m.moved[i] {
			continue
		}
		owed, _ := storage.WholeMirror(&rows[i])
		if err := errors.Join(failed[i], err); err != nil {
			m.s.cfg.Logger.Warn("sidecar lacks lines for now", "store", m.s.cfg.BaseDir, "path", rows[i].Path, "error", err)
			m.s.ledger.oweMirror(owed)
			continue
		}
		m.s.ledger.payMirror(owed)
	}
}

// newPath is a path in a directory that no blob has had: of the blob's name, with a
// UUID that no reference has.
func (s *store) newPath(blob *storage.BlobRow, dir string) (string, error) {
	id, err := s.mint.next()
	if err != nil {
		return "", err
	}
	_, name, _ := strings.Cut(blob.Path[strings.LastIndexByte(blob.Path, '/')+1:], "-")
	_, extension, _ := strings.Cut(name, ".")
	file := blob.NameHash() + "-" + id.String() + "." + extension
	if dir == "." {
		return file, nil
	}
	return dir + "/" + file, nil
}
