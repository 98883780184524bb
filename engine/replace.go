package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// A new index takes the place of an old one in the control directory by these
// steps, each durable before the next. Whoever takes them has the guard alone.
//
//  1. the new index is whole in rebuild/, closed and synced
//  2. rebuild/ becomes rebuilt-<time>/                 now the new index counts
//  3. index.damaged-<time>/ is made; each file of the old index is linked into
//     it, then its old name is removed
//  4. each file of the new index is linked to its final name
//  5. rebuilt-<time>/ becomes rebuild/, and is removed
//
// A crash before step 2 leaves the old index and a rebuild/ that is of no use: the
// next opening removes it. After step 2 the next opening, or rebuild, goes on:
// rebuilt-<time>/ has every file of the new index until all of them are in place,
// so that a file in the control directory is of the old one exactly if it is not
// the one there. Where there are no hard links, and for what is a directory,
// a rename does: then a file that rebuilt-<time>/ no longer has is in place.
//
// The files of an index are those that the new one consists of, and what is named
// after one of these with more behind a dot or a dash. Nothing else is touched.
const (
	unfinishedDir   = "rebuild"
	finishedPrefix  = "rebuilt-"
	setAsidePrefix  = "index.damaged-"
	replacementTime = "20060102T150405.000000Z" // in UTC
)

// replacements looks for an index that is to be put in place, and for one that
// was not finished.
func replacements(ctl *os.Root) (stamp string, unfinished bool, err error) {
	entries, err := fs.ReadDir(ctl.FS(), ".")
	if err != nil {
		return "", false, fmt.Errorf("list %s: %w", ctl.Name(), storage.Classify(err))
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case !e.IsDir():
		case name == unfinishedDir:
			unfinished = true
		case strings.HasPrefix(name, finishedPrefix):
			stamp = strings.TrimPrefix(name, finishedPrefix)
		}
	}
	return stamp, unfinished, nil
}

// finishReplacements puts every new index in place that is whole, and removes what
// is not. The caller has the guard alone.
func (s *store) finishReplacements(ctx context.Context) error {
	for {
		stamp, unfinished, err := replacements(s.ctl)
		if err != nil {
			return err
		}
		if unfinished {
			if err := s.ctl.RemoveAll(unfinishedDir); err != nil {
				return fmt.Errorf("remove unfinished index: %w", storage.Classify(err))
			}
		}
		if stamp == "" {
			return nil
		}
		r := &replacement{ctl: s.ctl, stamp: stamp, noSync: s.cfg.Sync == SyncNone, faults: s.faults, log: s.cfg.Logger}
		if err := r.finish(ctx); err != nil {
			return fmt.Errorf("put new index in place: %w", storage.Classify(err))
		}
	}
}

// replacement is a new index on its way into place.
type replacement struct {
	ctl    *os.Root
	stamp  string // the time in the names of its directories
	noSync bool
	faults faultPoints
	log    *slog.Logger
}

func (r *replacement) fresh() string    { return finishedPrefix + r.stamp }
func (r *replacement) setAside() string { return setAsidePrefix + r.stamp }

// begin takes steps 1 and 2 with the index in rebuild/, which is closed.
func (r *replacement) begin(ctx context.Context) error {
	r.stamp = time.Now().UTC().Format(replacementTime)
	names, err := r.names(unfinishedDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.leaveAlike(name); err != nil {
			return err
		}
	}
	if err := r.syncBelow(unfinishedDir); err != nil {
		return err
	}
	if err := r.faults.reach(ctx, faultRebuilt); err != nil {
		return err
	}
	if err := r.ctl.Rename(unfinishedDir, r.fresh()); err != nil {
		return err
	}
	return r.sync(".")
}

// leaveAlike drops a file of the new index that the old one has byte for byte,
// such as a reserve or a lock: that one stays where it is.
func (r *replacement) leaveAlike(name string) error {
	alike, err := sameBytes(r.ctl, unfinishedDir+"/"+name, name)
	if err != nil || !alike {
		return err
	}
	return r.ctl.Remove(unfinishedDir + "/" + name)
}

// finish takes the steps from 3 on, as far as they are still to be taken.
func (r *replacement) finish(ctx context.Context) error {
	fresh, err := r.names(r.fresh())
	if err != nil {
		return err
	}
	if err := r.clear(ctx, fresh); err != nil {
		return err
	}
	for _, name := range fresh {
		if err := r.move(r.fresh()+"/"+name, name); err != nil {
			return err
		}
		if err := r.faults.reach(ctx, faultPlaced); err != nil {
			return err
		}
	}
	if err := r.sync("."); err != nil {
		return err
	}
	if err := r.faults.reach(ctx, faultReplaced); err != nil {
		return err
	}
	if err := r.ctl.Rename(r.fresh(), unfinishedDir); err != nil {
		return err
	}
	if err := r.faults.reach(ctx, faultReplaced); err != nil {
		return err
	}
	r.log.Info("put a new index in place", "directory", r.ctl.Name(), "old", r.setAside())
	return errors.Join(r.ctl.RemoveAll(unfinishedDir), r.sync("."))
}

// clear is step 3: it sets the old index aside.
func (r *replacement) clear(ctx context.Context, fresh []string) error {
	all, err := r.names(".")
	if err != nil {
		return err
	}
	old := slices.DeleteFunc(all, func(name string) bool {
		return !partOf(name, fresh) || r.same(name, r.fresh()+"/"+name)
	})
	if len(old) == 0 {
		return nil
	}
	if err := r.ctl.Mkdir(r.setAside(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := r.sync("."); err != nil {
		return err
	}
	for _, name := range old {
		if err := r.move(name, r.setAside()+"/"+name); err != nil {
			return err
		}
		if err := r.faults.reach(ctx, faultSetAside); err != nil {
			return err
		}
	}
	if err := r.sync(r.setAside()); err != nil {
		return err
	}
	for _, name := range old {
		if err := r.ctl.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := r.faults.reach(ctx, faultSetAside); err != nil {
			return err
		}
	}
	return r.sync(".")
}

// partOf says whether a file belongs to an index of these files.
func partOf(name string, files []string) bool {
	return slices.ContainsFunc(files, func(file string) bool {
		rest, named := strings.CutPrefix(name, file)
		return named && (rest == "" || rest[0] == '.' || rest[0] == '-')
	})
}

// move gives what has one name another; the old name stays where there are hard
// links. It is done already where the two are one file.
func (r *replacement) move(from, to string) error {
	err := r.ctl.Link(from, to)
	switch {
	case err == nil, r.same(from, to):
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is in the way of %s in %s: %w: move it elsewhere", to, from, r.ctl.Name(), err)
	}
	return r.ctl.Rename(from, to) // which says what is wrong, if anything is
}

// same says whether two names are of one file or, in a store that was copied
// meanwhile, of the copies of one.
func (r *replacement) same(a, b string) bool {
	x, errX := r.ctl.Lstat(a)
	y, errY := r.ctl.Lstat(b)
	if errX != nil || errY != nil {
		return false
	}
	if os.SameFile(x, y) {
		return true
	}
	alike, err := sameBytes(r.ctl, a, b)
	return alike && err == nil
}

func (r *replacement) names(dir string) ([]string, error) {
	entries, err := fs.ReadDir(r.ctl.FS(), dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// syncBelow makes a directory durable with all that is in it.
func (r *replacement) syncBelow(dir string) error {
	return fs.WalkDir(r.ctl.FS(), dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return r.sync(name)
	})
}

// sync makes a file or the entries of a directory durable.
func (r *replacement) sync(name string) error {
	if r.noSync {
		return nil
	}
	flag := os.O_RDONLY
	if runtime.GOOS == "windows" { // syncs no directories, and files that are open for writing only
		info, err := r.ctl.Lstat(name)
		if err != nil || info.IsDir() {
			return err
		}
		flag = os.O_RDWR
	}
	f, err := r.ctl.OpenFile(name, flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sameBytes says whether two regular files are there and have the same bytes.
func sameBytes(root *os.Root, a, b string) (same bool, err error) {
	x, errX := root.Lstat(a)
	y, errY := root.Lstat(b)
	if errX != nil || errY != nil || !x.Mode().IsRegular() || !y.Mode().IsRegular() || x.Size() != y.Size() {
		return false, nil
	}
	f, err := root.Open(a)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g, err := root.Open(b)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	const piece = 64 << 10
	p, q := make([]byte, piece), make([]byte, piece)
	for {
		n, errN := io.ReadFull(f, p)
		m, errM := io.ReadFull(g, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errN != nil || errM != nil {
			atEnd := func(err error) bool { return err == nil || err == io.EOF || err == io.ErrUnexpectedEOF }
			return atEnd(errN) && atEnd(errM), nil // what cannot be read is set aside
		}
	}
}
