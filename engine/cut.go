package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/google/uuid"

	"github.com/mediabolt/mediabolt/storage"
)

// cuttable is an index that can tell what it held at one moment, although it goes
// on changing: pages are read while it does, and a cut knows what to leave out of
// them and what they lack.
//
// The moment is that at which the cut begins. A change that was called before it
// belongs to what the index held then, whenever it commits; beginCut waits for
// those, without keeping others from going on. A change that is called later does
// not. So whatever has returned before another call began is in the cut if that
// call is.
type cuttable struct {
	Index

	mu   sync.Mutex // guards the rest; a leaf lock
	now  *sync.WaitGroup
	cuts []*cut // under way; replaced, never changed

	turning sync.Mutex // held while changes are waited for; taken before mu
}

// cut is what has changed since its moment.
type cut struct {
	mu      sync.Mutex // guards the rest; a leaf lock
	added   map[storage.UUID]struct{}
	removed map[storage.UUID]storage.RefPair // that were there at the moment
}

func newCuttable(index Index) *cuttable { return &cuttable{Index: index, now: new(sync.WaitGroup)} }

// beginCut begins a cut, and returns when all that belongs to its moment is in the
// index.
func (c *cuttable) beginCut() *cut {
	k := &cut{added: map[storage.UUID]struct{}{}, removed: map[storage.UUID]storage.RefPair{}}
	c.turn(func(cuts []*cut) []*cut { return append(cuts, k) })
	return k
}

// endCut returns when the cut knows all that has changed before.
func (c *cuttable) endCut(k *cut) {
	c.turn(func(cuts []*cut) []*cut {
		var left []*cut
		for _, other := range cuts {
			if other != k {
				left = append(left, other)
			}
		}
		return left
	})
}

// turn changes the cuts for all changes that are called from now on, and waits for
// those that were called before.
func (c *cuttable) turn(change func([]*cut) []*cut) {
	c.turning.Lock()
	defer c.turning.Unlock()
	c.mu.Lock()
	before := c.now
	c.now = new(sync.WaitGroup)
	c.cuts = change(c.cuts[:len(c.cuts):len(c.cuts)])
	c.mu.Unlock()
	before.Wait()
}

// enter counts a change, and returns the cuts that it comes after.
func (c *cuttable) enter() (cuts []*cut, leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Add(1)
	return c.cuts, c.now.Done
}

// Add is Index.Add.
func (c *cuttable) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	cuts, leave := c.enter()
	defer leave()
	for _, k := range cuts {
		k.noteAdded(add.Ref.UUID)
	}
	return c.Index.Add(ctx, add)
}

// Remove is Index.Remove.
func (c *cuttable) Remove(ctx context.Context, id storage.ID) (storage.Removal, error) {
	cuts, leave := c.enter()
	defer leave()
	if len(cuts) == 0 {
		return c.Index.Remove(ctx, id)
	}
	ref, blob, err := c.Index.Ref(ctx, id)
	was := err == nil
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return storage.Removal{}, err
	}
	removal, err := c.Index.Remove(ctx, id)
	// One that came between the two had not returned at the moment, and may as well
	// be later.
	if err == nil && removal.Found && was {
		for _, k := range cuts {
			k.noteRemoved(storage.RefPair{Ref: ref, Blob: blob})
		}
	}
	return removal, err
}

// StoreID is that of the index, zero where it has none.
func (c *cuttable) StoreID() (id uuid.UUID) {
	if i, ok := c.Index.(interface{ StoreID() uuid.UUID }); ok {
		return i.StoreID()
	}
	return id
}

func (k *cut) noteAdded(id storage.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.added[id] = struct{}{}
}

func (k *cut) noteRemoved(p storage.RefPair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, later := k.added[p.Ref.UUID]; !later {
		k.removed[p.Ref.UUID] = p
	}
}

// later says whether a reference that is in the index was not there at the moment.
func (k *cut) later(id storage.UUID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, added := k.added[id]
	return added
}
