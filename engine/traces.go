package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// tracePage is how many blobs are looked at between two looks at the context.
const tracePage = 256

// traces gives blobs other paths whose present ones, or whose sidecars, tell of the
// erasure's IDs although no reference that has them is left: a blob that others share
// can lie in the directory of one that has ended, and a sidecar keeps the lines of
// those that have. It looks at the row of every blob of the store, at the sidecars of
// those alone that have lost references.
func (e *erasing) traces(ctx context.Context) error {
	ids := idsOf(e.query)
	if len(ids) == 0 {
		return nil
	}
	// Lines that wait would bring back what is to go.
	if err := e.s.checkpoint(ctx, true); err != nil {
		return err
	}
	counters, err := e.s.index.Counters(ctx)
	if err != nil {
		return err
	}
	e.far = EraseProgress{Step: EraseTraces, Total: counters.Blobs}
	var after storage.BlobKey
	for {
		page, err := e.s.index.Blobs(ctx, after, tracePage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return e.directories(ctx, ids)
		}
		after = page[len(page)-1].Key
		var list []relocation
		for i := range page {
			r, found, err := e.trace(ctx, &page[i], ids)
			if err != nil {
				return err
			}
			if found {
				list = append(list, r)
			}
		}
		for part := range slices.Chunk(list, maxMoves) {
			if err := e.moveAway(ctx, part); err != nil {
				return err
			}
		}
		e.tell(len(page))
	}
}

// directories removes those of the IDs that a removal of a file has left behind.
func (e *erasing) directories(ctx context.Context, ids []erasedID) error {
	for _, id := range ids {
		foreign, err := e.s.blobs.PruneNamed(ctx, id.kind, id.id)
		for _, dir := range foreign {
			e.fail(EraseFailure{Path: dir, Err: fmt.Errorf("%w: the directory has files that are not of this store: remove them", storage.ErrPermission)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *erasing) moveAway(ctx context.Context, part []relocation) error {
	for i, err := range e.s.move(ctx, part) {
		switch {
		case err == nil:
			e.Moved++
		case errors.Is(err, storage.ErrCorrupted), errors.Is(err, storage.ErrPermission):
			e.fail(EraseFailure{Path: part[i].from, Err: err})
		default:
			return err
		}
	}
	return nil
}

// erasedID is an ID that is not to be found any more.
type erasedID struct {
	kind storage.IDKind
	id   string
}

func (e erasedID) of(m *storage.MediaMetadata) bool { return e.kind.Of(m) == e.id }

// idsOf are the IDs of a query.
func idsOf(q *Query) []erasedID {
	var ids []erasedID
	for _, id := range [...]erasedID{
		{storage.SessionIDs, q.SessionID}, {storage.ConversationIDs, q.ConversationID}, {storage.RunIDs, q.RunID}, {storage.UserIDs, q.UserID},
	} {
		if id.id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// trace says whether a blob has to have another path, and which.
func (e *erasing) trace(ctx context.Context, blob *storage.BlobRow, ids []erasedID) (r relocation, found bool, err error) {
	inPath := func(id erasedID) bool { return inDirectory(blob, id) }
	if !slices.ContainsFunc(ids, inPath) && blob.Ended == 0 {
		return r, false, nil
	}
	var first *storage.RefRow
	ids = slices.Clone(ids)
	for p, err := range e.s.sharers(ctx, blob) {
		if err != nil {
			return r, false, err
		}
		if first == nil {
			first = &p.Ref
		}
		// What one has that is not erased may be told of.
		ids = slices.DeleteFunc(ids, func(id erasedID) bool { return id.of(&p.Ref.Metadata) })
		if len(ids) == 0 {
			return r, false, nil
		}
	}
	if first == nil {
		return r, false, nil
	}
	dir := path.Dir(blob.Path)
	if slices.ContainsFunc(ids, inPath) {
		dir = blobs.Dir(blob.Organization, &first.Metadata)
	} else if told, err := e.inSidecar(ctx, blob, ids); err != nil || !told {
		return r, false, err
	}
	r = relocation{key: blob.Key, from: blob.Path, mode: blob.Organization}
	r.to, err = e.s.newPath(blob, dir)
	return r, true, err
}

// inDirectory says whether a directory of a blob's path is that of an ID.
func inDirectory(blob *storage.BlobRow, id erasedID) bool {
	elements := strings.Split(blob.Path, "/")
	for i, kind := range blobs.Levels(blob.Organization) {
		if kind == id.kind && i < len(elements)-1 && elements[i] == blobs.Element(kind, id.id) {
			return true
		}
	}
	return false
}

// inSidecar says whether a sidecar tells of an ID. One that cannot be read is taken to.
func (e *erasing) inSidecar(ctx context.Context, blob *storage.BlobRow, ids []erasedID) (bool, error) {
	// Whoever has found a reference to be there has written the line of it.
	unlock, err := e.s.keys.lock(ctx, blob.Key)
	if err != nil {
		return false, err
	}
	defer unlock()
	sidecar, err := e.s.blobs.ReadSidecar(ctx, blob.Path)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if sidecar.Damaged > 0 {
		return true, nil
	}
	return slices.ContainsFunc(sidecar.Lines, func(l storage.SidecarLine) bool {
		return l.Ref != nil && slices.ContainsFunc(ids, func(id erasedID) bool { return id.of(&l.Ref.Metadata) })
	}), nil
}
