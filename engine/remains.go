package engine

import (
	"context"
	"errors"
	"os"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// remains is what an index that is to be replaced still tells of the changes that
// the tree may not show yet: its debt, with the rows that this is about.
type remains struct {
	// known says that no other change can be missing in the tree: so what is
	// staged without being in here was never committed.
	known   bool
	blobs   map[storage.BlobKey]storage.BlobRow
	at      map[string]storage.BlobKey // of blobs, by path
	refs    map[storage.BlobKey][]storage.RefRow
	ended   map[storage.UUID]struct{}
	unlinks map[string]struct{}
	// What sidecars are owed: lines of references and tombstones, by the UUID, and
	// all of it, by the blob.
	lines, tombstones map[storage.UUID]struct{}
	whole             map[storage.BlobKey]struct{}
	// former are the sidecars that blobs had at the paths that they were moved
	// from, of those that are owed a whole one.
	former map[storage.BlobKey]storage.Sidecar
}

func newRemains() *remains {
	return &remains{
		blobs: map[storage.BlobKey]storage.BlobRow{}, at: map[string]storage.BlobKey{}, refs: map[storage.BlobKey][]storage.RefRow{},
		ended: map[storage.UUID]struct{}{}, unlinks: map[string]struct{}{},
		lines: map[storage.UUID]struct{}{}, tombstones: map[storage.UUID]struct{}{},
		whole: map[storage.BlobKey]struct{}{}, former: map[storage.BlobKey]storage.Sidecar{},
	}
}

func (r *remains) addBlob(b *storage.BlobRow) {
	r.blobs[b.Key] = *b
	r.at[b.Path] = b.Key
}

func (r *remains) addDebt(mirrors []storage.Mirror, unlinks []storage.Unlink) {
	for _, m := range mirrors {
		switch {
		case m.Whole:
			r.whole[m.Blob] = struct{}{}
		case m.Deleted:
			r.tombstones[m.UUID] = struct{}{}
		default:
			r.lines[m.UUID] = struct{}{}
		}
	}
	for _, u := range unlinks {
		r.unlinks[u.Path] = struct{}{}
	}
}

// blobAt is the row of the blob at a path.
func (r *remains) blobAt(path string) (storage.BlobRow, bool) {
	key, there := r.at[path]
	return r.blobs[key], there
}

// has says whether a set has something.
func has[K comparable](set map[K]struct{}, k K) bool {
	_, there := set[k]
	return there
}

// remainsOf asks an index that could be opened. Rows that it cannot read are left
// out: then damaged says so.
func remainsOf(ctx context.Context, index Index) (r *remains, damaged, err error) {
	r = newRemains()
	debt, err := index.Debt(ctx)
	switch {
	case errors.Is(err, storage.ErrCorrupted):
		return r, err, nil
	case err != nil:
		return nil, nil, err
	}
	r.known = true
	r.addDebt(debt.Mirrors, debt.Unlinks)
	asked := map[storage.UUID]struct{}{}
	for _, m := range debt.Mirrors {
		if m.Deleted {
			r.ended[m.UUID] = struct{}{}
			continue
		}
		err := r.ask(ctx, index, m, asked)
		switch {
		case errors.Is(err, storage.ErrCorrupted):
			damaged, r.known = err, false
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return nil, nil, err
		}
	}
	return r, damaged, nil
}

// ask gets the rows that a line, or a whole sidecar, is about.
func (r *remains) ask(ctx context.Context, index Index, m storage.Mirror, asked map[storage.UUID]struct{}) error {
	blob, err := index.Blob(ctx, m.Blob)
	if err != nil {
		return err
	}
	r.addBlob(&blob)
	add := func(ref storage.RefRow) {
		if !has(asked, ref.UUID) {
			asked[ref.UUID] = struct{}{}
			r.refs[m.Blob] = append(r.refs[m.Blob], ref)
		}
	}
	if m.Whole {
		for p, err := range (&store{index: index}).sharers(ctx, &blob) {
			if err != nil {
				return err
			}
			add(p.Ref)
		}
		return nil
	}
	id, err := idOf(&blob, m.UUID)
	if err != nil {
		return err
	}
	ref, _, err := index.Ref(ctx, id)
	if err != nil {
		return err
	}
	add(ref)
	return nil
}

// salvageBolt asks the log of an index that cannot be opened.
func salvageBolt(ctl *os.Root) (*remains, error) {
	left, err := boltindex.Salvage(ctl)
	if err != nil {
		return nil, err
	}
	r := newRemains()
	r.known = true
	r.addDebt(left.Mirrors, left.Unlinks)
	for i := range left.Blobs {
		r.addBlob(&left.Blobs[i])
	}
	for _, ref := range left.Refs {
		r.refs[ref.Blob] = append(r.refs[ref.Blob], ref)
	}
	for _, id := range left.Ended {
		r.ended[id] = struct{}{}
	}
	return r, nil
}

// readFormer reads the sidecars of paths that blobs were moved from, for those that
// have none at their new path yet.
func (r *remains) readFormer(ctx context.Context, tree Blobs) error {
	if len(r.whole) == 0 {
		return nil
	}
	for path := range r.unlinks {
		side, err := tree.ReadSidecar(ctx, path)
		switch {
		case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupted):
			continue
		case err != nil:
			return err
		}
		if has(r.whole, side.Blob.Key) {
			r.former[side.Blob.Key] = side
		}
	}
	return nil
}
