package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// kept looks for what the erasure leaves as it is and that tells of what was erased, or
// may.
func (e *erasing) kept(ctx context.Context) error {
	e.Quarantined, e.KeptIndexes = nil, nil
	entries, err := fs.ReadDir(e.s.ctl.FS(), ".")
	if err != nil {
		return fmt.Errorf("list %s: %w", e.s.ctl.Name(), err)
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, boltindex.CopyPrefix) || strings.HasPrefix(name, setAsidePrefix) {
			e.KeptIndexes = append(e.KeptIndexes, blobs.ControlDir+"/"+name)
		}
	}
	ids := idsOf(e.query)
	if len(ids) == 0 {
		return nil
	}
	batches, err := e.s.blobs.Batches(ctx)
	if err != nil {
		return err
	}
	for _, batch := range batches {
		tells, err := e.s.batchTells(ctx, batch, ids)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil, tells: // of what cannot be read it is not known
			e.Quarantined = append(e.Quarantined, batch)
		}
	}
	return nil
}

// batchTells says whether a batch of the quarantine tells of one of some IDs: in the
// path or the sidecar of a file, or in its manifest.
func (s *store) batchTells(ctx context.Context, batch string, ids []erasedID) (bool, error) {
	lines, err := s.readManifest(ctx, batch)
	if err != nil {
		return false, err
	}
	for i := range lines {
		l := &lines[i]
		if pathTells(l.Path, ids) {
			return true, nil
		}
		if tells, err := l.tells(ids); tells || err != nil {
			return tells, err
		}
		blob, sidecar := strings.CutSuffix(l.Path, sidecarSuffix)
		if l.Action != manifestMove || !sidecar {
			continue
		}
		switch side, err := s.blobs.ReadAside(ctx, batch, blob); {
		case errors.Is(err, storage.ErrNotFound):
		case err != nil:
			return false, err
		case side.Damaged > 0, slices.ContainsFunc(side.Lines, func(l storage.SidecarLine) bool { return l.Ref != nil && hasID(&l.Ref.Metadata, ids) }):
			return true, nil
		}
	}
	return false, nil
}

func hasID(m *storage.MediaMetadata, ids []erasedID) bool {
	return slices.ContainsFunc(ids, func(id erasedID) bool { return id.of(m) })
}

// pathTells says whether a directory of a path is named after an ID, in whatever
// organization it once was.
func pathTells(name string, ids []erasedID) bool {
	elements := strings.Split(path.Dir(name), "/")
	return slices.ContainsFunc(ids, func(id erasedID) bool { return slices.Contains(elements, blobs.Element(id.kind, id.id)) })
}

// tells says whether the metadata of a reference that a line tells of has an ID.
func (l *manifestLine) tells(ids []erasedID) (bool, error) {
	if l.Metadata == nil {
		return false, nil
	}
	var m storage.MediaMetadata
	data, err := json.Marshal(l.Metadata)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return false, fmt.Errorf("%w: metadata of reference %s in the manifest: %w", storage.ErrCorrupted, l.Reference, err)
	}
	return hasID(&m, ids), nil
}
