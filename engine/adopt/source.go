package adopt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// source is a directory that is being adopted.
type source struct {
	root *os.Root
	dir  string // absolute
	base string // how the old store spelled dir

	files      map[string]*file // by path
	candidates []*candidate
	left       []Item
}

// file is a regular file of the source. Paths are relative to it, with forward
// slashes, and are not always valid UTF-8.
type file struct {
	path     string
	size     int64 // bytes
	modified time.Time
	spoken   bool // something was said about it, or is going to be
}

// candidate is a file that may be taken, with what the old store says of it.
type candidate struct {
	path     string
	file     *file    // nil: it is not there
	origins  []string // the old references, see originsOf
	info     storage.MediaInfo
	metadata storage.MediaMetadata
	count    int64          // references, 0 where that is not known
	digest   storage.Digest // expected; zero: not known
	size     int64          // expected; negative: not known
	belongs  []string       // files that go with it, relative to the source
	odd      Odd
	detail   string
}

// note keeps the first thing that is odd.
func (c *candidate) note(odd Odd, format string, args ...any) {
	if c.odd == "" {
		c.odd, c.detail = odd, fmt.Sprintf(format, args...)
	}
}

func (c *candidate) item(state State) Item {
	i := Item{Path: c.path, State: state, Count: c.count, Odd: c.odd, Detail: c.detail}
	if c.file != nil {
		i.Size = c.file.size
	}
	return i
}

// leave says that a path stays, and why.
func (s *source) leave(path string, odd Odd, format string, args ...any) {
	i := Item{Path: path, State: Left, Odd: odd, Detail: fmt.Sprintf(format, args...)}
	if f := s.files[path]; f != nil {
		i.Size, f.spoken = f.size, true
	}
	s.left = append(s.left, i)
}

// survey finds the files, and makes candidates of them.
func (s *source) survey(ctx context.Context, o *Options) error {
	if err := s.walk(ctx, "."); err != nil {
		return err
	}
	format := o.Format
	if format == Auto {
		var err error
		if format, err = s.detect(); err != nil {
			return err
		}
	}
	p, err := parsePattern(o.Pattern)
	if err != nil {
		return err
	}
	switch format {
	case JSON:
		err = s.surveyJSON(ctx, p)
	case PromptKit:
		err = s.surveyPromptKit(ctx)
	default:
		s.surveyPlain(p)
	}
	byPath := func(a, b *candidate) int { return cmp.Compare(a.path, b.path) }
	slices.SortStableFunc(s.candidates, byPath)
	slices.SortStableFunc(s.left, func(a, b Item) int { return cmp.Compare(a.Path, b.Path) })
	return err
}

// detect finds out which format the source has.
func (s *source) detect() (Format, error) {
	_, isJSON := s.files[jsonIndex]
	_, isKit := s.files[kitIndex]
	switch {
	case isJSON && isKit:
		return "", fmt.Errorf("%w: it has both %s and %s: say which format it is to be read as", storage.ErrInvalidConfig, jsonIndex, kitIndex)
	case isJSON:
		return JSON, nil
	case isKit || s.looksLikePromptKit():
		return PromptKit, nil
	}
	return Plain, nil
}

// total is what there is to do.
func (s *source) total() Progress {
	p := Progress{TotalFiles: len(s.candidates)}
	for _, c := range s.candidates {
		if c.file != nil {
			p.TotalBytes += c.file.size
		}
	}
	return p
}

// walk finds the files below a directory. What cannot be read is left; it ends with
// ctx's error alone, or where the source itself cannot be read.
func (s *source) walk(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := s.list(dir)
	if err != nil && dir == "." {
		return err
	} else if err != nil {
		s.leave(dir, OddUnreadable, "%v", err)
		return nil
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && e.Name() == blobs.ControlDir:
			s.leave(name, OddForeign, "a store of mediabolt's own: adopt or import that by itself")
		case isLitter(e):
			s.leave(name, OddLitter, "left by the system or by a program")
		case e.IsDir():
			if err := s.walk(ctx, name); err != nil {
				return err
			}
		case e.Type().IsRegular():
			if info, err := e.Info(); err == nil { // else it is gone
				s.files[name] = &file{path: name, size: info.Size(), modified: info.ModTime()}
			}
		default:
			s.leave(name, OddSpecial, "%s: only regular files are adopted", kindOf(e))
		}
	}
	return nil
}

func kindOf(e fs.DirEntry) string {
	if e.Type()&fs.ModeSymlink != 0 {
		return "a symbolic link"
	}
	return "not a regular file, but " + e.Type().String()
}

// list is the entries of a directory, in order. fs.FS would refuse names that are
// not valid UTF-8.
func (s *source) list(dir string) (entries []fs.DirEntry, err error) {
	d, err := s.root.Open(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	entries, err = d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

// Names of what systems and programs leave in folders, in lower case.
var (
	litterNames    = []string{".ds_store", "thumbs.db", "desktop.ini", "@eadir", "lost+found", ".spotlight-v100", ".fseventsd", "$recycle.bin"}
	litterPrefixes = []string{"._", ".trash", ".nfs", ".fuse_hidden", "~$"}
	litterSuffixes = []string{".tmp", ".part", ".partial", ".crdownload", ".swp"}
)

func isLitter(e fs.DirEntry) bool {
	name := strings.ToLower(e.Name())
	if slices.Contains(litterNames, name) {
		return true
	}
	has := func(match func(string, string) bool, list []string) bool {
		return slices.ContainsFunc(list, func(part string) bool { return match(name, part) })
	}
	return has(strings.HasPrefix, litterPrefixes) || !e.IsDir() && has(strings.HasSuffix, litterSuffixes)
}

// open opens a regular file of the source.
func (s *source) open(name string) (*os.File, fs.FileInfo, error) {
	// A pipe that has taken the place of the file must not block the opening.
	f, err := s.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file any more, but %s", name, info.Mode().Type())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// read is the content of a small file of the old store's own.
func (s *source) read(name string, limit int64) (_ []byte, err error) {
	f, info, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info.Size() > limit {
		return nil, fmt.Errorf("%d bytes, of which at most %d are read", info.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// originsOf is what the old store may have called a file: as its index spells it, if
// it does, below the old base, and where it is now. Absolute ones come first: they
// tell files of several sources apart. A relative one may be that of other files
// too, and leads to the one that was adopted first.
func (s *source) originsOf(path, spelled string) []string {
	rel := filepath.FromSlash(path)
	var absolute, relative []string
	for _, origin := range []string{spelled, filepath.Join(s.base, rel), filepath.Join(s.dir, rel)} {
		switch {
		case origin == "" || slices.Contains(absolute, origin) || slices.Contains(relative, origin):
		case filepath.IsAbs(origin):
			absolute = append(absolute, origin)
		default:
			relative = append(relative, origin)
		}
	}
	return append(absolute, relative...)
}

// identities are the origins that no other file has.
func (c *candidate) identities() []string {
	return slices.DeleteFunc(slices.Clone(c.origins), func(o string) bool { return !filepath.IsAbs(o) })
}

// inside is where a path of an old index is in the source, be it relative to it or
// absolute below the old base or where the source is now.
func (s *source) inside(spelled string) (string, bool) {
	rel := filepath.FromSlash(spelled)
	for _, above := range []string{s.base, s.dir} {
		if !filepath.IsAbs(rel) {
			break
		}
		if r, err := filepath.Rel(above, rel); err == nil && filepath.IsLocal(r) {
			rel = r
		}
	}
	if rel = filepath.Clean(rel); rel == "." || !filepath.IsLocal(rel) {
		return "", false
	}
	return filepath.ToSlash(rel), true
}
