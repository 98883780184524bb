package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// FS is the store as a read-only file system (io/fs), in any organization mode,
// whatever the directories on disk are: every reference has a file of its own,
// called after its ID, in the directories that the mode makes of its IDs. The
// empty mode is that of the store.
//
// It is also an fs.StatFS and an fs.ReadDirFS. Files are *Blobs, so they verify
// what they read, and are io.Seekers and io.ReaderAts; their time is CreatedAt,
// and the Sys of their FileInfo is an Entry. Directories have no time. So it
// serves http.FileServerFS, fs.WalkDir and tar.Writer.AddFS; what is stored or
// deleted meanwhile may or may not be seen.
//
// Opening a file costs the same in a store of any size. A directory is read page by
// page, at a cost in proportion to the references in it, the outermost one to its
// directories, with two exceptions: what lacks the outermost ID, and so is in
// no-session and the like, is found by a pass over the store, and so is the name of
// an ID that was too long for a directory among those of its kind. Directories
// within another are told apart in memory.
//
// Errors are *fs.PathErrors that wrap those of Open, Stat and List.
func (f *FileStore) FS(view storage.OrganizationMode) fs.FS { return &fileView{f, view} }

// fileView is a store as a file system.
type fileView struct {
	f    *FileStore
	mode storage.OrganizationMode
}

var (
	_ fs.StatFS    = (*fileView)(nil)
	_ fs.ReadDirFS = (*fileView)(nil)
)

// viewDir is a directory: the kinds of ID that all make directories, and the IDs
// of those that lead to it.
type viewDir struct {
	mode   storage.OrganizationMode
	levels []storage.IDKind
	ids    []string
}

// Open opens a file or directory.
func (v *fileView) Open(name string) (fs.File, error) {
	file, err := v.open(name)
	if err != nil {
		return nil, viewError("open", name, err)
	}
	return file, nil
}

func (v *fileView) open(name string) (fs.File, error) {
	ctx := context.Background()
	s, leave, err := v.f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	dir, id, err := v.resolve(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if dir != nil {
		return newOpenDir(v, dir, name), nil
	}
	blob, err := s.openTold(ctx, &storage.StorageReference{ID: id.String()})
	if err != nil {
		return nil, err
	}
	info, err := infoOf(&storage.RefPair{Ref: blob.ref, Blob: blob.row})
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return &openFile{blob, info}, nil
}

// Stat tells of a file or directory, without a look at the file on disk.
func (v *fileView) Stat(name string) (fs.FileInfo, error) {
	info, err := v.stat(name)
	if err != nil {
		return nil, viewError("stat", name, err)
	}
	return info, nil
}

func (v *fileView) stat(name string) (fs.FileInfo, error) {
	ctx := context.Background()
	s, leave, err := v.f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	dir, id, err := v.resolve(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if dir != nil {
		return dirInfo(path.Base(name)), nil
	}
	var pair storage.RefPair
	if pair.Ref, pair.Blob, err = s.index.Ref(ctx, id); err != nil {
		return nil, err
	}
	return infoOf(&pair)
}

// ReadDir reads a directory, sorted by name.
func (v *fileView) ReadDir(name string) ([]fs.DirEntry, error) {
	file, err := v.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // of a directory it does not fail
	dir, ok := file.(*openDir)
	if !ok {
		return nil, viewError("readdir", name, errNoDirectory)
	}
	return dir.sorted()
}

var errNoDirectory = errors.New("not a directory")

// viewError is an error of the file system about one name.
func viewError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: storage.Classify(err)}
}

// resolve is what is at a name: a directory, or else a reference. Where there is
// neither it is ErrNotFound.
func (v *fileView) resolve(ctx context.Context, s *store, name string) (*viewDir, storage.ID, error) {
	var id storage.ID
	if !fs.ValidPath(name) {
		return nil, id, fs.ErrInvalid
	}
	mode := v.mode
	if mode == "" {
		mode = s.cfg.Organization
	}
	if err := mode.Validate(); err != nil {
		return nil, id, err
	}
	dir := &viewDir{mode: mode, levels: blobs.Levels(mode)}
	if name == "." {
		return dir, id, nil
	}
	elements := strings.Split(name, "/")
	if len(elements) == len(dir.levels)+1 {
		id, err := v.file(ctx, s, mode, name)
		return nil, id, err
	}
	if len(elements) > len(dir.levels) {
		return nil, id, storage.ErrNotFound
	}
	for _, e := range elements {
		child, err := v.child(ctx, dir, e)
		if err != nil {
			return nil, id, err
		}
		dir.ids = append(dir.ids, child)
	}
	if dir.ids[0] == "" {
		// Otherwise a pass over the store would have to tell that there are none.
		if n, err := s.lacking(ctx, dir.levels[0]); err != nil || n == 0 {
			return nil, id, cmp.Or(err, storage.ErrNotFound)
		}
	}
	if there, err := v.exists(ctx, dir); err != nil || !there {
		return nil, id, cmp.Or(err, storage.ErrNotFound)
	}
	return dir, id, nil
}

// exists says whether there is a reference in a directory.
func (v *fileView) exists(ctx context.Context, dir *viewDir) (bool, error) {
	q := dir.query()
	if !slices.Contains(dir.ids, "") {
		q.Limit = 1
	}
	for p, err := range v.f.pairs(ctx, &q) {
		if err != nil || dir.holds(&p.Ref.Metadata) {
			return err == nil, err
		}
	}
	return false, nil
}

// file is the reference whose file has a name.
func (v *fileView) file(ctx context.Context, s *store, mode storage.OrganizationMode, name string) (storage.ID, error) {
	stem, _, _ := strings.Cut(path.Base(name), ".")
	id, err := storage.ParseID(stem)
	if err != nil {
		return id, storage.ErrNotFound // is the name of no file
	}
	ref, _, err := s.index.Ref(ctx, id)
	if err == nil && path.Join(blobs.Dir(mode, &ref.Metadata), blobs.FileName(id, ref.MimeType)) != name {
		err = storage.ErrNotFound // is elsewhere
	}
	return id, err
}

// child is the ID whose directory within dir has a name.
func (v *fileView) child(ctx context.Context, dir *viewDir, name string) (string, error) {
	kind := dir.levels[len(dir.ids)]
	id, cut, ok := blobs.ElementID(kind, name)
	if ok {
		return id, nil
	}
	if cut {
		for id, err := range v.children(ctx, dir) {
			if err != nil || blobs.Element(kind, id) == name {
				return id, err
			}
		}
	}
	return "", storage.ErrNotFound
}

// infoOf tells of the file of a reference.
func infoOf(p *storage.RefPair) (*fileInfo, error) {
	e, err := entry(p.Blob.NameHash(), &p.Ref, &p.Blob)
	if err != nil {
		return nil, err
	}
	id, err := storage.ParseID(e.Reference.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: reference %s: %w", storage.ErrCorrupted, e.Reference.ID, err)
	}
	return &fileInfo{name: blobs.FileName(id, e.MimeType), mode: viewFileMode, entry: &e}, nil
}

// Modes of what cannot be changed.
const (
	viewFileMode fs.FileMode = 0o444
	viewDirMode              = fs.ModeDir | 0o555
)

func dirInfo(name string) *fileInfo { return &fileInfo{name: name, mode: viewDirMode} }

// fileInfo tells of a file or directory, also as an entry of one.
type fileInfo struct {
	name  string
	mode  fs.FileMode
	entry *Entry // nil: a directory
}

func (i *fileInfo) Name() string               { return i.name }
func (i *fileInfo) Mode() fs.FileMode          { return i.mode }
func (i *fileInfo) Type() fs.FileMode          { return i.mode.Type() }
func (i *fileInfo) IsDir() bool                { return i.mode.IsDir() }
func (i *fileInfo) Info() (fs.FileInfo, error) { return i, nil }
func (i *fileInfo) String() string             { return fs.FormatFileInfo(i) }

func (i *fileInfo) Size() int64 {
	if i.entry == nil {
		return 0
	}
	return i.entry.Size
}

func (i *fileInfo) ModTime() time.Time {
	if i.entry == nil {
		return time.Time{}
	}
	return i.entry.Metadata.CreatedAt
}

func (i *fileInfo) Sys() any {
	if i.entry == nil {
		return nil
	}
	return *i.entry
}

// openFile is a file that is open.
type openFile struct {
	*Blob
	info *fileInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
