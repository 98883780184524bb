package certify

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// crewSize is how many goroutines work at the same time.
const crewSize = 64

// crew is goroutines that work on one store and tell all they do. Each has
// references of its own, which only it deletes, and shows one of them on the
// board, where the others may read it while it is being deleted.
type crew struct {
	store *engine.FileStore
	say   func(note) // safe for concurrent use
	seed  uint64
	round int
	keep  int // references that each goroutine has at most

	ops      atomic.Int64
	dossiers atomic.Int64
	fresh    atomic.Uint64
	board    [crewSize]atomic.Pointer[kept]
	erasing  chan struct{} // full while as many erase as may
}

// kept is a reference and what is behind it.
type kept struct {
	id string
	piece
}

// work goes on until ctx is done or the store is closed, or returns the first
// error that should not be. What is under way then ends in order.
func (c *crew) work(ctx context.Context) error {
	c.erasing = make(chan struct{}, erasers)
	shares, err := c.adopt(ctx)
	if errors.Is(err, storage.ErrClosed) {
		return nil
	} else if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	for i := range crewSize {
		group.Go(func() {
			w := &worker{crew: c, number: i, share: shares[i],
				r: rand.New(rand.NewPCG(c.seed, uint64(c.round*crewSize+i)))}
			for ctx.Err() == nil {
				if err := w.step(); errors.Is(err, storage.ErrClosed) {
					return
				} else if err != nil {
					stop(err)
				}
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

// share is what one worker alone deletes, holds and erases.
type share struct {
	mine []kept
	held []hold
}

// adopt shares out what the store holds. A dossier, and a hold and what it is on, are
// one worker's. Erasures that others have left are seen through before.
func (c *crew) adopt(ctx context.Context) ([]share, error) {
	if _, err := c.store.ResumeErasures(ctx); err != nil {
		return nil, err
	}
	shares := make([]share, crewSize)
	owners := map[string]int{} // by reference or dossier
	next := 0
	for e, err := range c.store.List(ctx, engine.Query{}) {
		if err != nil {
			return nil, err
		}
		p, err := pieceOf(&e)
		if err != nil {
			return nil, err
		}
		if !e.ExpiresAt.IsZero() { // an end that a kill or a closing has prevented
			if _, err := c.store.Retain(ctx, &e.Reference, engine.PolicyForever); err != nil {
				return nil, err
			}
		}
		next++
		i := next % crewSize
		if d := p.dossier(); d != "" {
			if owner, known := owners[d]; known {
				i = owner
			}
			owners[d] = i
		}
		owners[e.Reference.ID] = i
		shares[i].mine = append(shares[i].mine, kept{e.Reference.ID, p})
	}
	return shares, c.adoptHolds(ctx, shares, owners)
}

// adoptHolds shares out the holds in force. What is on a dossier outlives that.
func (c *crew) adoptHolds(ctx context.Context, shares []share, owners map[string]int) error {
	for h, err := range c.store.Holds(ctx) {
		if err != nil {
			return err
		}
		i, known := owners[h.Target.ID]
		if !known && h.Target.Kind == engine.HoldReference {
			return fmt.Errorf("%w: reference %s is held by %q and is gone", errBroken, h.Target.ID, h.Name)
		}
		owners[h.Target.ID] = i
		shares[i].held = append(shares[i].held, hold{target: h.Target.ID, name: h.Name})
	}
	return nil
}

func (c *crew) newOp() string { return fmt.Sprintf("%d.%d", c.round, c.ops.Add(1)) }

// together is how many goroutines bring the same new content at about the same
// time.
const together = 3

// freshSeed is a seed that a few goroutines get, and nobody before.
func (c *crew) freshSeed() uint64 {
	n := c.fresh.Add(1) / together
	return rand.NewPCG(c.seed^uint64(c.round), n).Uint64() | 1<<63
}

// worker is one goroutine of a crew.
type worker struct {
	*crew
	number int
	r      *rand.Rand
	share
	dossier string // that new pieces go to; empty: none yet
}

// step makes one call of a random kind; most of them are stores as long as there is
// room.
func (w *worker) step() error {
	switch n := w.r.IntN(100); {
	case len(w.mine) == 0:
		return w.put()
	case len(w.mine) > w.keep:
		return w.delete()
	case n < 48:
		return w.put()
	case n < 64:
		return w.delete()
	case n < 69:
		return w.holdOrRelease()
	case n < 74:
		return w.erase()
	case n < 85:
		return w.readMine()
	}
	return w.readOther()
}

// impatience is the deadline of some stores, of which a part is over in the
// middle of the call.
const impatience = 3 * time.Millisecond

func (w *worker) put() error {
	p := piece{op: w.newOp(), seed: w.r.Uint64N(sharedSeeds)}
	if w.r.IntN(4) == 0 {
		p.op += "/" + w.openDossier()
	}
	if w.r.IntN(2) == 0 {
		p.seed = w.freshSeed()
	}
	ctx := context.Background()
	if w.r.IntN(20) == 0 {
		hurried, cancel := context.WithTimeout(ctx, time.Duration(w.r.Int64N(int64(impatience))))
		defer cancel()
		ctx = hurried
	}
	data := content(p.seed)
	w.say(note{verb: verbStore, op: p.op, seed: p.seed})
	ref, err := w.call(ctx, data, p.metadata())
	if err != nil {
		return w.refused(p.op, err)
	}
	w.say(note{verb: verbStored, op: p.op, id: ref.ID})
	w.mine = append(w.mine, kept{ref.ID, p})
	return nil
}

// openDossier is the dossier that new pieces go to.
func (w *worker) openDossier() string {
	if w.dossier == "" {
		w.dossier = dossierName(w.round, w.dossiers.Add(1))
	}
	return w.dossier
}

// call stores data, as a stream or in one piece.
func (w *worker) call(ctx context.Context, data []byte, m storage.MediaMetadata) (*storage.StorageReference, error) {
	if len(data) > spooledSize || w.r.IntN(2) == 0 {
		return w.store.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{MimeType: "image/png"}, m)
	}
	return w.store.Store(ctx, &storage.MediaContent{
		Type: "image", MimeType: "image/png", Data: "data:;base64," + base64.StdEncoding.EncodeToString(data),
	}, m)
}

// refused tells of a call that left nothing behind, and returns the error
// unless the caller's own deadline was the reason.
func (w *worker) refused(op string, err error) error {
	if errors.Is(err, storage.ErrInDoubt) {
		return err
	}
	if limit := new(engine.LimitError); errors.As(err, &limit) {
		return w.limited(op, limit)
	}
	w.say(note{verb: verbRefused, op: op})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// limited tells of a Store that a limit has refused, which must have had a reason.
func (w *worker) limited(op string, l *engine.LimitError) error {
	room := l.Bytes - l.Used
	if l.Limit == engine.LimitFree {
		room = -room
	}
	if l.Asked <= room {
		return fmt.Errorf("%w: operation %s was refused without a reason: %w", errBroken, op, l)
	}
	w.say(note{verb: verbLimited, op: op})
	return nil
}

func (w *worker) delete() error {
	i := w.r.IntN(len(w.mine))
	k := w.mine[i]
	if w.holds(&k) {
		return w.deleteHeld(&k)
	}
	w.mine = slices.Delete(w.mine, i, i+1)
	op := w.newOp()
	w.say(note{verb: verbDelete, op: op, id: k.id})
	if w.r.IntN(4) == 0 {
		return w.expire(op, k.id)
	}
	for n := range 1 + w.r.IntN(2) { // a second time is no different
		err := w.store.Delete(context.Background(), &storage.StorageReference{ID: k.id})
		if err != nil && n == 0 {
			return w.refused(op, err)
		} else if err != nil && !errors.Is(err, storage.ErrClosed) {
			return err
		}
	}
	w.say(note{verb: verbDeleted, op: op})
	return nil
}

// isOver is a policy whose time is over.
const isOver = "2001-01-01T00:00:00Z"

// expire deletes a reference by its expiry, which another worker's Expire may come to
// first.
func (w *worker) expire(op, id string) error {
	ctx := context.Background()
	if _, err := w.store.Retain(ctx, &storage.StorageReference{ID: id}, isOver); err != nil {
		return w.refused(op, err)
	}
	done, err := w.store.Expire(ctx, engine.ExpireOptions{})
	switch {
	case err != nil:
		w.say(note{verb: verbUnsure, op: op}) // others end what is due, too
		return err
	case done.Failed > 0:
		return fmt.Errorf("%w: expire: %w", errBroken, done.Failures[0].Err)
	}
	w.say(note{verb: verbDeleted, op: op})
	return nil
}

// readMine reads a reference that is there, since only w deletes it.
func (w *worker) readMine() error {
	k := w.mine[w.r.IntN(len(w.mine))]
	w.board[w.number].Store(&k)
	if w.r.IntN(2) == 0 {
		return w.hasRead(compare(context.Background(), w.store, k.id, k.seed))
	}
	got, err := w.store.Retrieve(context.Background(), &storage.StorageReference{ID: k.id})
	if err == nil && got.Data != base64.StdEncoding.EncodeToString(content(k.seed)) {
		err = fmt.Errorf("%w: reference %s: retrieved other bytes than those of seed %d", errBroken, k.id, k.seed)
	}
	return w.hasRead(err)
}

// readOther reads what another goroutine may be deleting; then it may be gone.
func (w *worker) readOther() error {
	k := w.board[w.r.IntN(crewSize)].Load()
	if k == nil {
		return nil
	}
	err := compare(context.Background(), w.store, k.id, k.seed)
	if errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupted) {
		return nil
	}
	return w.hasRead(err)
}

func (w *worker) hasRead(err error) error {
	if err == nil {
		w.say(note{verb: verbRead})
	}
	return err
}

// hindered says whether an error is the machine's: it proves nothing about the
// store. A file that is not there, or that is, is not: only the store uses its
// directory.
func hindered(err error) bool {
	for _, ours := range []error{storage.ErrCorrupted, fs.ErrNotExist, fs.ErrExist} {
		if errors.Is(err, ours) {
			return false
		}
	}
	for _, theirs := range []error{storage.ErrDiskSpace, storage.ErrPermission, storage.ErrIO} {
		if errors.Is(err, theirs) {
			return true
		}
	}
	return false
}
