package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/term"

	"github.com/mediabolt/mediabolt/blobs"
)

// standardInput is the name of standard input on a command line.
const standardInput = "-"

// isStore says whether dir holds a store.
func isStore(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, blobs.ControlDir))
	return err == nil
}

// source is something to store.
type source struct {
	name string // a path, or standardInput
	size int64  // bytes; negative: not known
	err  error  // why it cannot be stored
}

// totalSize is the size of all sources, negative where one is not known.
func totalSize(sources []source) int64 {
	var total int64
	for _, s := range sources {
		if s.size < 0 {
			return -1
		}
		total += s.size
	}
	return total
}

// gather finds what the arguments name, in their order, and below a directory
// in order of names. The store in storeDir is no source.
func (a *app) gather(ctx context.Context, args []string, storeDir string, recursive bool) []source {
	var found []source
	for i, arg := range args {
		switch {
		case arg == standardInput && slices.Contains(args[:i], standardInput):
			found = append(found, source{name: arg, err: errors.New("standard input is named twice, and can be read once")})
		case arg == standardInput:
			if term.IsTerminal(int(a.stdin.Fd())) {
				a.note("reading standard input; Ctrl-D ends it")
			}
			found = append(found, source{name: arg, size: -1})
		default:
			found = append(found, a.gatherPath(ctx, arg, storeDir, recursive)...)
		}
	}
	return found
}

func (a *app) gatherPath(ctx context.Context, path, storeDir string, recursive bool) []source {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s: %w", path, noSuchFile{})
	case err != nil:
	case info.IsDir() && !recursive:
		err = hinted(fmt.Errorf("%s is a directory", path), "-r stores the files in it")
	case info.IsDir():
		return a.walk(ctx, path, storeDir)
	case !info.Mode().IsRegular():
		err = hinted(fmt.Errorf("%s is not a regular file", path), "'mediabolt put -' stores what it reads from standard input")
	default:
		return []source{{name: path, size: info.Size()}}
	}
	return []source{{name: path, err: err}}
}

// noSuchFile is fs.ErrNotExist in plain words.
type noSuchFile struct{}

func (noSuchFile) Error() string { return "no such file" }
func (noSuchFile) Unwrap() error { return fs.ErrNotExist }

// walk finds the regular files below a directory.
func (a *app) walk(ctx context.Context, dir, storeDir string) []source {
	// A link that the caller named is followed, one that is found is not.
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return []source{{name: dir, err: err}}
	}
	store, _ := os.Stat(storeDir) // nil where the store is still to be made
	var found []source
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			found = append(found, source{name: path, err: err})
		case path == root && isSame(path, store):
			found = append(found, source{name: dir, err: fmt.Errorf("%s is the store itself", dir)})
			return fs.SkipAll
		case d.IsDir() && (d.Name() == blobs.ControlDir || isSame(path, store)):
			a.note("skipping %s, which belongs to a store", path)
			return fs.SkipDir
		case d.IsDir():
		case d.Type().IsRegular():
			found = append(found, regular(path, d))
		case d.Type()&fs.ModeSymlink != 0:
			a.note("skipping %s, a symbolic link", path)
		default:
			a.note("skipping %s, not a regular file", path)
		}
		return nil
	})
	if err != nil {
		found = append(found, source{name: dir, err: err})
	}
	return found
}

func regular(path string, d fs.DirEntry) source {
	info, err := d.Info()
	if err != nil {
		return source{name: path, err: err}
	}
	return source{name: path, size: info.Size()}
}

// isSame says whether path is the file that info describes.
func isSame(path string, info fs.FileInfo) bool {
	if info == nil {
		return false
	}
	is, err := os.Stat(path)
	return err == nil && os.SameFile(is, info)
}

// interruptibleWriter is w, except that a write ends with ctx. One to a pipe that nobody
// reads cannot be stopped otherwise, and is left behind.
type interruptibleWriter struct {
	ctx context.Context
	w   io.Writer
}

func (i interruptibleWriter) Write(b []byte) (n int, err error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		n, err = i.w.Write(b)
	}()
	select {
	case <-written:
		return n, err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// interruptible is r, except that a read ends with ctx. A read of a terminal or
// pipe cannot be stopped otherwise; the one under way is left behind.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}
