package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// openDir is a directory that is open. It reads on, page by page, as it is asked.
type openDir struct {
	name string
	info *fileInfo
	next func() (fs.DirEntry, error, bool)
	stop func()
	err  error // why there is nothing more

	closed bool
}

func newOpenDir(v *fileView, dir *viewDir, name string) *openDir {
	d := &openDir{name: name, info: dirInfo(path.Base(name))}
	d.next, d.stop = iter.Pull2(v.entries(context.Background(), dir))
	return d
}

// Stat tells of the directory.
func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }

// Read is an error: a directory has no bytes.
func (d *openDir) Read([]byte) (int, error) {
	return 0, viewError("read", d.name, errors.New("is a directory"))
}

// Close ends the reading. It does not fail the first time.
func (d *openDir) Close() error {
	if d.closed {
		return viewError("close", d.name, fs.ErrClosed)
	}
	d.stop()
	d.closed, d.err = true, fs.ErrClosed
	return nil
}

// ReadDir reads up to n entries more, or all that are left where n is not
// positive, in an order of the index's own. See fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	list := []fs.DirEntry{}
	for d.err == nil && (n <= 0 || len(list) < n) {
		entry, err, more := d.next()
		switch {
		case !more:
			d.err = io.EOF
		case err != nil:
			d.err = err
		default:
			list = append(list, entry)
		}
	}
	if d.err == nil || errors.Is(d.err, io.EOF) && (n <= 0 || len(list) > 0) {
		return list, nil
	}
	if errors.Is(d.err, io.EOF) {
		return list, io.EOF
	}
	return list, viewError("readdir", d.name, d.err)
}

// sorted is all entries by name.
func (d *openDir) sorted() ([]fs.DirEntry, error) {
	list, err := d.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return list, err
}

// entries is what is in a directory.
func (v *fileView) entries(ctx context.Context, dir *viewDir) iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		if len(dir.ids) < len(dir.levels) {
			kind := dir.levels[len(dir.ids)]
			for id, err := range v.children(ctx, dir) {
				if !yield(dirInfo(blobs.Element(kind, id)), err) {
					return
				}
			}
			return
		}
		for p, err := range v.pairs(ctx, dir) {
			if err != nil {
				yield(nil, err)
				return
			}
			info, err := infoOf(&p)
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// children is the IDs of the directories in a directory, empty for the one of what
// lacks the ID.
func (v *fileView) children(ctx context.Context, dir *viewDir) iter.Seq2[string, error] {
	kind := dir.levels[len(dir.ids)]
	if len(dir.ids) == 0 {
		return v.outermost(ctx, kind)
	}
	return func(yield func(string, error) bool) {
		seen := map[string]bool{}
		for p, err := range v.pairs(ctx, dir) {
			id := kind.Of(&p.Ref.Metadata)
			if err == nil && seen[id] {
				continue
			}
			seen[id] = true
			if !yield(id, err) || err != nil {
				return
			}
		}
	}
}

// outermost is the IDs of a kind that references have, and the empty one if some
// have none.
func (v *fileView) outermost(ctx context.Context, kind storage.IDKind) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		after := ""
		for {
			page, lacking, err := v.idPage(ctx, kind, after)
			if err != nil {
				yield("", err)
				return
			}
			for _, id := range page {
				if !yield(id, nil) {
					return
				}
				after = id
			}
			if len(page) < listPage {
				if lacking > 0 {
					yield("", nil)
				}
				return
			}
		}
	}
}

// idPage is a page of IDs after one, and how many references have none.
func (v *fileView) idPage(ctx context.Context, kind storage.IDKind, after string) (page []string, lacking int64, err error) {
	s, leave, err := v.f.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	if page, err = s.index.IDs(ctx, kind, after, listPage); err != nil {
		return nil, 0, err
	}
	lacking, err = s.lacking(ctx, kind)
	return page, lacking, err
}

// lacking is how many references have no ID of a kind.
func (s *store) lacking(ctx context.Context, kind storage.IDKind) (int64, error) {
	c, err := s.index.Counters(ctx)
	switch kind {
	case storage.SessionIDs:
		return c.NoSession, err
	case storage.RunIDs:
		return c.NoRun, err
	}
	return c.NoConversation, err
}

// pairs is the references in a directory and below.
func (v *fileView) pairs(ctx context.Context, dir *viewDir) iter.Seq2[storage.RefPair, error] {
	return func(yield func(storage.RefPair, error) bool) {
		q := dir.query()
		for p, err := range v.f.pairs(ctx, &q) {
			if (err != nil || dir.holds(&p.Ref.Metadata)) && !yield(p, err) {
				return
			}
		}
	}
}

// query is what a List can do to find what is in the directory.
func (d *viewDir) query() (q Query) {
	for i, id := range d.ids {
		switch d.levels[i] {
		case storage.SessionIDs:
			q.SessionID = id
		case storage.RunIDs:
			q.RunID = id
		default:
			q.ConversationID = id
		}
	}
	return q
}

// holds says whether a reference is in the directory, for a query lets through what
// has an ID where the directory is of those that have none.
func (d *viewDir) holds(m *storage.MediaMetadata) bool {
	for i, id := range d.ids {
		if d.levels[i].Of(m) != id {
			return false
		}
	}
	return true
}
