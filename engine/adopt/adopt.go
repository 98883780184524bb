// Package adopt moves media into a store from where it was kept before: from a
// store whose index is one JSON file, from PromptKit's local file store, or from a
// plain folder. It also writes that JSON file for a store, for tools that read it.
//
// # Formats
//
//	json       .dedup-index.json, see jsonindex.go
//	promptkit  .dedup_index.json, sessions/, conversations/, runs/ and a .meta
//	           beside each file, see promptkit.go
//	plain      any folder; IDs come from the path, see pattern.go
//
// # What is kept
//
// Every file is read once: it is hashed on its way into the store, and nothing of it
// is kept when its hash or size is not what the old index says. What the old store
// had for a reference, its path, is recorded (engine.AdoptedFrom), so
// FileStore.Resolve finds the new one, and a second run adds nothing twice: what has
// been taken is known by its path, told by its size to be the same, and in a move by
// its bytes. What was deleted since is not taken again.
//
// The source is only read, unless it is to be moved (Options.InPlace): then a file
// is removed once its copy in the store is durable, recorded, and read back.
//
// # Hostile sources
//
// Everything is opened through an os.Root of the source, so neither a path in an old
// index nor a symbolic link leads out of it. Symbolic links are not followed at all.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Format of a source.
type Format string

// The formats, of which Auto is to find out which it is.
const (
	Auto      Format = "auto"
	JSON      Format = "json"
	PromptKit Format = "promptkit"
	Plain     Format = "plain"
)

// Formats lists every format, Auto first.
func Formats() []Format { return []Format{Auto, JSON, PromptKit, Plain} }

// Options say what is to be adopted and how. Only Dir is required.
type Options struct {
	// Dir is the source, absolute or relative to the working directory.
	Dir string
	// Format of the source. Default: Auto.
	Format Format
	// Base is how the old store spelled Dir, for references that begin with it.
	// Default: the absolute path of Dir.
	Base string
	// Pattern says which elements of a path are IDs, see pattern.go; for Plain and
	// JSON. Default: none are, and every file is taken.
	Pattern string
	// InPlace removes files from the source whose copy in the store is durable and
	// was read back. Default: the source is only read.
	InPlace bool
	// DryRun checks every file and stores nothing.
	DryRun bool
	// Progress is told how far it has come, one call at a time. Default: nobody is.
	Progress func(Progress)

	// point is told where the adoption is, in tests that end it there.
	point func(name string)
}

func (o *Options) reach(name string) {
	if o.point != nil {
		o.point(name)
	}
}

// Progress is how far an adoption has come.
type Progress struct {
	Files, TotalFiles int
	Bytes, TotalBytes int64 // of files
}

// Check answers ErrInvalidConfig, naming the field, for options that Adopt would
// refuse before it looks at the source.
func (o *Options) Check() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", storage.ErrInvalidConfig, fmt.Sprintf(format, args...))
	}
	if o.Dir == "" {
		return invalid("no directory to adopt")
	}
	switch o.Format {
	case "":
		o.Format = Auto
	case Auto, JSON, PromptKit, Plain:
	default:
		return invalid("format %q: want one of %v", o.Format, Formats())
	}
	if o.Pattern != "" && o.Format == PromptKit {
		return invalid("a pattern for %s, which keeps IDs itself", PromptKit)
	}
	if _, err := parsePattern(o.Pattern); err != nil {
		return err
	}
	if o.InPlace && o.DryRun {
		return invalid("both InPlace and DryRun")
	}
	return nil
}

// Adopt moves the media of a source into a store, and yields what becomes of each
// file: first what is left for other reasons than its content, then file by file. It
// is safe beside other work on the store; another adoption waits. A file that cannot
// be taken is an Item that says why, and no error. An error ends it: of the options
// or the source (ErrInvalidConfig, ErrCorrupted for an index that cannot be read,
// fs.ErrNotExist), of the store, as with FileStore.StoreReader, or ctx's. What was
// yielded as taken stays, and the next run goes on.
//
// store may be nil in a dry run, as for a store that is still to be made.
func Adopt(ctx context.Context, store *engine.FileStore, o Options) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := run(ctx, store, o, func(i Item) bool { return yield(i, nil) }); err != nil && !errors.Is(err, errStopped) {
			yield(Item{}, fmt.Errorf("adopt %s: %w", o.Dir, storage.Classify(err)))
		}
	}
}

// errStopped is the end of a run whose caller has had enough.
var errStopped = errors.New("stopped")

func run(ctx context.Context, store *engine.FileStore, o Options, yield func(Item) bool) (err error) {
	if err := o.Check(); err != nil {
		return err
	}
	if store == nil && !o.DryRun {
		return fmt.Errorf("%w: no store", storage.ErrInvalidConfig)
	}
	src, err := openSource(o.Dir, o.Base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.root.Close()) }()
	if err := src.survey(ctx, &o); err != nil {
		return err
	}
	for _, i := range src.left {
		if !yield(i) {
			return errStopped
		}
	}
	t := &taker{store: store, src: src, options: &o, progress: once{now: src.total(), tell: o.Progress}}
	if !o.DryRun {
		if t.adoption, err = store.Adopt(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.adoption.Close()) }()
	}
	return t.takeAll(ctx, yield)
}

// CheckApart answers ErrInvalidConfig when one of the directories of a source and
// of a store is inside the other. Neither has to exist.
func CheckApart(source, store string) error {
	a, err := resolved(source)
	if err != nil {
		return err
	}
	b, err := resolved(store)
	if err != nil {
		return err
	}
	if within(a, b) || within(b, a) {
		return fmt.Errorf("%w: source %s and store %s are not apart: choose a store beside it", storage.ErrInvalidConfig, source, store)
	}
	return nil
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if at == filepath.Dir(at) {
			return path, nil
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// within says whether path is dir or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// openSource opens a source and refuses a store of mediabolt's own.
func openSource(dir, base string) (*source, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	if _, err := root.Lstat(blobs.ControlDir); err == nil {
		return nil, errors.Join(fmt.Errorf("%w: it is a store of mediabolt's own", storage.ErrInvalidConfig), root.Close())
	}
	if base == "" {
		base = abs
	}
	return &source{root: root, dir: abs, base: filepath.Clean(base), files: map[string]*file{}}, nil
}

// once tells a progress from several goroutines, one call at a time.
type once struct {
	mu   sync.Mutex
	now  Progress
	tell func(Progress)
}

func (p *once) add(files int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Files += files
	p.now.Bytes += bytes
	if p.tell != nil {
		p.tell(p.now)
	}
}
