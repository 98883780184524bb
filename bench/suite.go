package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Sizes of the contents that are measured, in bytes.
const (
	smallSize = 4 << 10
	storeSize = 100 << 10
	readSize  = 1 << 20
	largeSize = 16 << 20
)

// manyWriters is the concurrency of a busy service.
const manyWriters = 64

// Suite measures the ratios of mediabolt over its floors.
type Suite struct {
	Dir    string        // a scratch directory on the filesystem to be measured
	Rounds int           // per ratio
	Time   time.Duration // per floor and per subject of a round
	// Preload is how many references the large index has. Zero: that ratio is
	// left out.
	Preload int
	// Only leaves out the targets that it says no to. Nil: none.
	Only func(Target) bool
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
			return errors.Join(err, os.RemoveAll(dir))
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// ratio measures a target, unless it is left out.
func (s *Suite) ratio(ctx context.Context, t Target, floor, subject func(writer int) func() error) error {
	if !s.wants(t) {
		return nil
	}
	r := &Ratio{Target: t}
	if err := r.measure(ctx, s.Rounds, s.Time, floor, subject); err != nil {
		return err
	}
	s.Done(r)
	return nil
}

func (s *Suite) wants(t Target) bool { return s.Only == nil || s.Only(t) }

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
		target Target
		size   int
	}{{storeMany, storeSize}, {storeOne, storeSize}, {storeSmall, smallSize}, {storeLarge, largeSize}} {
		err := s.ratio(ctx, r.target,
			func(w int) func() error { return disk.Writer(w, r.size) },
			func(int) func() error { return StoreNew(store, r.size) })
		if err != nil {
			return err
		}
	}
	return CloseWhole(ctx, store)
}

// present measures stores of contents that are there.
func (s *Suite) present(ctx context.Context, dir string) error {
	if !s.wants(presentRaw) && !s.wants(presentText) {
		return nil
	}
	store, err := OpenStore(dir)
	if err != nil {
		return err
	}
	if err := Preload(store, storeSize); err != nil {
		return err
	}
	for _, r := range []struct {
		target  Target
		encoded bool
	}{{presentRaw, false}, {presentText, true}} {
		err := s.ratio(ctx, r.target,
			func(int) func() error { return HashFloor(storeSize) },
			func(int) func() error { return StorePresent(store, storeSize, r.encoded) })
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
	return CloseWhole(ctx, store)
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
	for _, r := range []struct {
		target  Target
		encode  bool
		subject func() error
	}{
		{retrieveOne, true, Retrieve(store, ref)},
		{openNew, false, OpenRead(store, ref, false)},
		{openReused, false, OpenRead(store, ref, true)},
	} {
		err := s.ratio(ctx, r.target,
			func(int) func() error { return ReadFloor(file, r.encode) }, func(int) func() error { return r.subject })
		if err != nil {
			return err
		}
	}
	return CloseWhole(ctx, store)
}

// large measures stores into a large index against stores into an empty one.
func (s *Suite) large(ctx context.Context, dir string) error {
	target := preloaded(s.Preload)
	if s.Preload == 0 || !s.wants(target) {
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
	err = s.ratio(ctx, target,
		func(int) func() error { return StoreNew(empty, storeSize) },
		func(int) func() error { return StoreNew(store, storeSize) })
	if err != nil {
		return err
	}
	// The preloaded rows have no files, so only the other store is whole.
	if err := store.Close(); err != nil {
		return err
	}
	return CloseWhole(ctx, empty)
}

// CloseWhole closes a store that Verify finds nothing wrong with.
func CloseWhole(ctx context.Context, store *engine.FileStore) error {
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
