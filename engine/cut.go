package engine

import (
	"context"
	"errors"
	"sync"
	"time"

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
	mu    sync.Mutex // guards the rest; a leaf lock
	added map[storage.UUID]struct{}
	was   map[storage.UUID]storage.RefPair // what perhaps has changed, as it was
}

func newCuttable(index Index) *cuttable { return &cuttable{Index: index, now: new(sync.WaitGroup)} }

// beginCut begins a cut, and returns when all that belongs to its moment is in the
// index.
func (c *cuttable) beginCut() *cut {
	k := &cut{added: map[storage.UUID]struct{}{}, was: map[storage.UUID]storage.RefPair{}}
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
	leave, err := c.note(ctx, id)
	defer leave()
	if err != nil {
		return storage.Removal{}, err
	}
	return c.Index.Remove(ctx, id)
}

// End is Index.End.
func (c *cuttable) End(ctx context.Context, id storage.ID, due time.Time) (storage.Removal, error) {
	leave, err := c.note(ctx, id)
	defer leave()
	if err != nil {
		return storage.Removal{}, err
	}
	return c.Index.End(ctx, id, due)
}

// Revise is Index.Revise.
func (c *cuttable) Revise(ctx context.Context, id storage.ID, revise func(*storage.RefRow) bool) (storage.RefPair, error) {
	leave, err := c.note(ctx, id)
	defer leave()
	if err != nil {
		return storage.RefPair{}, err
	}
	return c.Index.Revise(ctx, id, revise)
}

// note notes a reference before it is changed. One that is not there, or is only
// about to be, had not been added by a call that had returned at the moment, and may
// as well be later.
func (c *cuttable) note(ctx context.Context, id storage.ID) (leave func(), err error) {
	cuts, leave := c.enter()
	if len(cuts) == 0 {
		return leave, nil
	}
	ref, blob, err := c.Index.Ref(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return leave, nil
	}
	if err == nil {
		for _, k := range cuts {
			k.noteChanged(storage.RefPair{Ref: ref, Blob: blob})
		}
	}
	return leave, err
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

func (k *cut) noteChanged(p storage.RefPair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, later := k.added[p.Ref.UUID]
	if _, noted := k.was[p.Ref.UUID]; !noted && !later {
		k.was[p.Ref.UUID] = p
	}
}

// later says whether a reference that is in the index was not there at the moment.
func (k *cut) later(id storage.UUID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, added := k.added[id]
	return added
}
