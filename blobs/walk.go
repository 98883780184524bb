package blobs

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// Staged lists what is in staging, and which of it this process knows: the rest
// is what a crash left. Errors: ErrPermission, ErrIO, or ctx's.
func (t *Tree) Staged(ctx context.Context) ([]storage.StagedFile, error) {
	var list []storage.StagedFile
	for i := range shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir := shard(i)
		entries, err := fs.ReadDir(t.root.FS(), dir)
		if err != nil {
			return nil, t.wrap("list", dir, err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, t.wrap("look at", dir+"/"+e.Name(), err)
			}
			file := storage.StagedFile{Path: dir + "/" + e.Name(), Size: info.Size(), Spool: strings.HasSuffix(e.Name(), partSuffix)}
			if key, err := storage.ParseBlobKey(e.Name()); err == nil && stagedPath(key) == file.Path {
				file.Key = key
			}
			if file.InUse, err = t.inUse(&file); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, t.wrap("look at", file.Path, err)
			}
			list = append(list, file)
		}
	}
	return list, nil
}

// inUse says whether this process knows a file in staging. A file that it does
// not know is there: one that was listed may be gone by now.
func (t *Tree) inUse(file *storage.StagedFile) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, staged := t.staged[file.Key]
	_, linked := t.linked[file.Key]
	_, spool := t.spools[file.Path]
	if staged || linked || spool {
		return true, nil
	}
	_, _, err := t.root.Lstat(file.Path)
	return false, err
}

// Files walks the tree, without the control directory, in lexical order. A
// file that vanishes meanwhile is left out; a directory of a system's, such as
// lost+found, comes as one. Errors end the walk: ErrPermission,
// ErrIO, or ctx's.
func (t *Tree) Files(ctx context.Context) iter.Seq2[storage.TreeFile, error] {
	return func(yield func(storage.TreeFile, error) bool) {
		stop := errors.New("stop")
		w := &walk{fsys: t.root.FS(), page: walkPage}
		w.found = func(name string, e fs.DirEntry) error {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case name == ControlDir:
				return nil
			case e.IsDir() && !systemsOwn(path.Base(name)):
				return w.dir(name)
			case !yield(treeFile(name), nil):
				return stop
			}
			return nil
		}
		w.failed = func(name string, err error) error { return t.wrap("walk", name, err) }
		if err := errors.Join(ctx.Err(), w.dir(".")); err != nil && !errors.Is(err, stop) {
			yield(storage.TreeFile{}, err)
		}
	}
}

func treeFile(name string) storage.TreeFile {
	f := storage.TreeFile{Path: name}
	f.Litter = litter(name)
	id, sidecar, ours := parseFileName(path.Base(name))
	if ours && !isLitter(path.Base(name)) {
		f.ID, f.Ours, f.Sidecar, f.Litter = id, true, sidecar, ""
		f.Blob = strings.TrimSuffix(name, metaSuffix)
	}
	return f
}

// Some says whether there is a file below a directory that is named as blobs and
// sidecars are. Errors: ErrPermission, ErrIO, or ctx's.
func Some(ctx context.Context, dir string) (some bool, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case !e.IsDir() && treeFile(name).Ours:
			some = true
			return fs.SkipAll
		}
		return nil
	})
	return some, storage.Classify(err)
}
