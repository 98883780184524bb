package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Sizes of the contents that are measured, in bytes.
const (
	storeSize = 100 << 10
	readSize  = 1 << 20
)

// manyWriters is the concurrency of a busy service.
const manyWriters = 64

// Suite measures the ratios of mediabolt over its floors.
type Suite struct {
	Dir    string        // a scratch directory on the filesystem to be measured
	Rounds int           // per ratio
	Time   time.Duration // per floor and per subject of a round
	// Preload is how many references the large index has.
	Preload int
	// Only leaves out the ratios whose names it does not match. Nil: none.
	Only *regexp.Regexp
	// Done is called with each ratio once it is measured.
	Done func(*Ratio)
}

// Run measures everything, and requires that the stores it wrote to are whole
// and hold what was stored.
func (s *Suite) Run(ctx context.Context) error {
	for _, step := range [...]func(context.Context, string) error{s.stores, s.present, s.reads, s.large} {
		dir, err := os.MkdirTemp(s.Dir, "mediabench-")
		if err != nil {
			return err
		}
		if err := step(ctx, dir); err != nil {
			return fmt.Errorf("%w (its files are left in %s)", err, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *Suite) ratio(r *Ratio, writers int, floor, subject func(writer int) func() error) error {
	if s.Only != nil && !s.Only.MatchString(r.Name) {
		return nil
	}
	if err := r.measure(s.Rounds, s.Time, writers, floor, subject); err != nil {
		return err
	}
	s.Done(r)
	return nil
}

// stores measures stores of new contents.
func (s *Suite) stores(ctx context.Context, dir string) error {
	disk, err := NewDiskFloor(filepath.Join(dir, "floor"))
	if err != nil {
		return err
	}
	store, err := OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	for _, r := range []struct {
		who     string
		writers int
		want    float64
	}{{"64 writers", manyWriters, 0.8}, {"1 writer", 1, 0.4}} {
		err := s.ratio(&Ratio{
			Name:  "store new 100 KiB, " + r.who,
			Floor: "create, write, fdatasync, rename", Want: r.want,
		}, r.writers,
			func(w int) func() error { return disk.Writer(w, storeSize) },
			func(int) func() error { return StoreNew(store, storeSize) })
		if err != nil {
			return err
		}
	}
	return closeWhole(ctx, store)
}

// present measures stores of contents that are there.
func (s *Suite) present(ctx context.Context, dir string) error {
	store, err := OpenStore(dir)
	if err != nil {
		return err
	}
	if err := Preload(store, storeSize); err != nil {
		return err
	}
	hash := func(int) func() error { return HashFloor(storeSize) }
	for _, r := range []struct {
		name    string
		want    float64
		encoded bool
	}{{"StoreReader", 0.5, false}, {"Store, base64", 0.4, true}} {
		err := s.ratio(&Ratio{
			Name:  fmt.Sprintf("store present 100 KiB, %d writers, %s", manyWriters, r.name),
			Floor: "SHA-256 on all cores", Want: r.want,
		}, manyWriters, hash, func(int) func() error { return StorePresent(store, storeSize, r.encoded) })
		if err != nil {
			return err
		}
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		return err
	}
	if stats.Blobs != present {
		return fmt.Errorf("%d blobs after storing %d contents again and again", stats.Blobs, present)
	}
	return closeWhole(ctx, store)
}

// reads measures reading one blob again and again.
func (s *Suite) reads(ctx context.Context, dir string) error {
	store, err := OpenStore(dir)
	if err != nil {
		return err
	}
	ref, err := store.StoreReader(ctx, bytes.NewReader(NewContent(readSize).Next()), info, storage.MediaMetadata{})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, ref.Metadata["path"])
	err = s.ratio(&Ratio{Name: "Retrieve 1 MiB", Floor: "os.ReadFile and standard base64", Want: 2}, 1,
		func(int) func() error { return ReadFloor(file, true) }, func(int) func() error { return Retrieve(store, ref) })
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name  string
		reuse bool
	}{{"a new buffer", false}, {"one buffer", true}} {
		err = s.ratio(&Ratio{Name: "Open and read 1 MiB, verified, into " + r.name, Floor: "os.ReadFile", Want: 0.8}, 1,
			func(int) func() error { return ReadFloor(file, false) },
			func(int) func() error { return OpenRead(store, ref, r.reuse) })
		if err != nil {
			return err
		}
	}
	return closeWhole(ctx, store)
}

// large measures stores into a large index against stores into an empty one.
func (s *Suite) large(ctx context.Context, dir string) error {
	name := fmt.Sprintf("store new 100 KiB, %d writers, %d references there", manyWriters, s.Preload)
	if s.Only != nil && !s.Only.MatchString(name) {
		return nil
	}
	full := filepath.Join(dir, "full")
	if err := FillIndex(ctx, full, s.Preload); err != nil {
		return fmt.Errorf("preload: %w", err)
	}
	empty, err := OpenStore(filepath.Join(dir, "empty"))
	if err != nil {
		return err
	}
	store, err := OpenStore(full)
	if err != nil {
		return err
	}
	err = s.ratio(&Ratio{
		Name:  name,
		Floor: "the same into an empty store", Want: 1 / 1.5,
	}, manyWriters,
		func(int) func() error { return StoreNew(empty, storeSize) },
		func(int) func() error { return StoreNew(store, storeSize) })
	if err != nil {
		return err
	}
	// The preloaded rows have no files, so only the other store is whole.
	if err := store.Close(); err != nil {
		return err
	}
	return closeWhole(ctx, empty)
}

// closeWhole closes a store that Verify finds nothing wrong with.
func closeWhole(ctx context.Context, store *engine.FileStore) error {
	for finding, err := range store.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			return err
		}
		if finding.Severity == storage.SeverityDamage {
			return fmt.Errorf("after the measurement: %s: %s: %s", finding.Kind, finding.Path, finding.Detail)
		}
	}
	return store.Close()
}
