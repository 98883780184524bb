package blobs

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/mediabolt/mediabolt/storage"
)

// Settle makes everything durable that returned before this call: published
// names, sidecar lines, removals. Then it removes the staged names of what was
// published. After an error nothing of it counts as durable, and the staged
// names stay for the next opening. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (t *Tree) Settle(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// One at a time: what one has taken to sync, another must not count as
	// durable.
	t.settling.Lock()
	defer t.settling.Unlock()
	t.mu.Lock()
	linked := maps.Clone(t.linked)
	changed := slices.Sorted(maps.Keys(t.changed))
	sidecars := slices.Sorted(maps.Keys(t.sidecars))
	clear(t.changed)
	clear(t.sidecars)
	t.mu.Unlock()
	if len(linked)+len(changed)+len(sidecars) == 0 {
		return nil
	}

	if err := t.settle(changed, sidecars); err != nil {
		t.doubt(linked)
		return err
	}
	for key, link := range linked {
		if err := t.unstage(key, link); err != nil {
			t.log.Warn("staged name stays until the next opening", "error", err)
		}
	}
	return nil
}

func (t *Tree) settle(changed, sidecars []string) error {
	if t.cfg.NoSync {
		return nil
	}
	if t.settler != nil && !t.distrust.Load() {
		return t.wrap("sync filesystem of", ".", t.wholeSync(t.settler))
	}
	for _, name := range sidecars {
		if err := t.syncPath(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return t.syncUpwards(changed)
}

// doubt marks what could not be made durable: its staged names stay, whatever
// later calls of Settle achieve.
func (t *Tree) doubt(linked map[storage.BlobKey]*link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range linked {
		l.doubtful = true
	}
}

// syncUpwards syncs directories and all above them, the deepest first. One that
// is gone was removed, which its parent's sync covers.
func (t *Tree) syncUpwards(changed []string) error {
	all := map[string]struct{}{}
	for _, dir := range changed {
		for ; ; dir = path.Dir(dir) {
			all[dir] = struct{}{}
			if dir == "." {
				break
			}
		}
	}
	for _, dir := range slices.Backward(slices.Sorted(maps.Keys(all))) {
		if err := t.syncDirs(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unstage removes the staged name of a published blob, unless something else
// is staged under that key by now. It holds mu meanwhile, so that nothing can
// be.
func (t *Tree) unstage(key storage.BlobKey, l *link) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.linked[key] != l || l.doubtful {
		return nil
	}
	delete(t.linked, key)
	// The next Settle makes this removal durable: otherwise a crash could bring
	// back the staged names of many.
	t.changed[shard(shardOf(key))] = struct{}{}
	err := t.staging[shardOf(key)].remove(key.String())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return t.wrap("unstage", stagedPath(key), err)
	}
	return nil
}
