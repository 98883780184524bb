package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/mediabolt/mediabolt/storage"
)

// PruneNamed removes the directories of an ID of a kind, of every organization mode,
// that are empty: a removal of the last file in one may have failed to. It looks into
// every directory of the levels above. Those with blobs in them stay, and those that
// are prepared; foreign are those that stay for files which are not of the store.
// Errors: ErrPermission, ErrIO, or ctx's.
func (t *Tree) PruneNamed(ctx context.Context, kind storage.IDKind, id string) (foreign []string, err error) {
	p := pruning{t: t, ctx: ctx, name: Element(kind, id)}
	var depths []int // levels above the ID's
	for _, mode := range storage.OrganizationModes() {
		if depth := slices.Index(Levels(mode), kind); depth >= 0 && !slices.Contains(depths, depth) {
			depths = append(depths, depth)
		}
	}
	for _, depth := range depths {
		if err := p.below(".", depth); err != nil {
			return p.foreign, err
		}
	}
	return p.foreign, nil
}

// pruning is one run of PruneNamed.
type pruning struct {
	t       *Tree
	ctx     context.Context
	name    string // of the directories
	foreign []string
}

// below prunes what has the name, that many levels below the directories in dir.
func (p *pruning) below(dir string, depth int) error {
	if depth == 0 {
		return p.prune(join(dir, p.name))
	}
	entries, err := fs.ReadDir(p.t.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return p.t.wrap("list", dir, err)
	}
	for _, e := range entries {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if inner := join(dir, e.Name()); e.IsDir() && inner != ControlDir {
			if err := p.below(inner, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune removes a directory and those in it, if no file is in any of them.
func (p *pruning) prune(dir string) error {
	t := p.t
	if _, mode, err := t.root.Lstat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !mode.IsDir() {
		return nil
	} else if err != nil {
		return t.wrap("look at", dir, err)
	}
	all, ours, others, err := p.look(dir)
	switch {
	case err != nil || ours:
		return err
	case others:
		p.foreign = append(p.foreign, dir)
		return nil
	}
	for _, name := range slices.Backward(all) {
		t.note(t.dirs.prune(name), "")
	}
	if _, _, err := t.root.Lstat(dir); errors.Is(err, fs.ErrNotExist) || t.dirs.busy(dir) {
		return nil
	}
	// Somebody may have published a blob there meanwhile.
	if _, ours, others, err := p.look(dir); err != nil || ours || others {
		return err
	}
	return fmt.Errorf("%w: directory %s in %s is empty and cannot be removed", storage.ErrIO, dir, t.root.Name())
}

// look walks a directory: all are it and those in it, the outer ones first, and ours
// and others say whether there are files of the store or not of it in any.
func (p *pruning) look(dir string) (all []string, ours, others bool, err error) {
	t := p.t
	err = fs.WalkDir(t.root.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return t.wrap("walk", name, err)
		case e.IsDir():
			all = append(all, name)
		case treeFile(name).Ours:
			ours = true
		default:
			others = true
		}
		return p.ctx.Err()
	})
	return all, ours, others, err
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
