package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/mediabolt/mediabolt/bench/strategy/frame"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// formatVersion is the version of everything in the package comment. Another one
// is refused.
const formatVersion = 3

var (
	keyFormat       = []byte("format")
	keyOrganization = []byte("organization")
)

// Options say what Index needs to know of a store.
type Options struct {
	// Name is the file or directory of the store, in the root of the index.
	Name string
	// Concurrent is set for a store whose transactions run side by side, and not
	// one after the other.
	Concurrent bool
	// Open opens the store at a path, and makes it where there is none.
	Open func(path string) (Store, error)
	// Size is how many bytes the store takes. Nil: what its files have allocated.
	Size func(Store) (int64, error)
}

// Index is an index over a Store. It is safe for concurrent use.
type Index struct {
	store        Store
	size         func(Store) (int64, error)
	place        *frame.Place
	staged       *frame.Staged
	touches      frame.Touches
	doubt        frame.Doubt
	organization storage.OrganizationMode
	// lanes are the rows of the totals that no transaction has. Nil: there is one
	// row, and the store's transactions run one after the other.
	lanes chan byte
}

// Open opens the index in config.Root. Errors: ErrNoStore, ErrLocked, ErrVersion,
// or what the store says.
func Open(ctx context.Context, config engine.IndexConfig, options Options) (engine.Index, error) {
	place, err := frame.Take(ctx, &config, options.Name)
	if err != nil {
		return nil, err
	}
	x := &Index{place: place, staged: frame.NewStaged(config.Sync), size: options.Size}
	if x.size == nil {
		x.size = func(Store) (int64, error) { return place.Size() }
	}
	if options.Concurrent {
		x.lanes = make(chan byte, math.MaxUint8+1)
		for lane := range cap(x.lanes) {
			x.lanes <- byte(lane)
		}
	}
	if x.store, err = options.Open(place.Path); err == nil {
		if err = x.begin(&config); err == nil {
			return x, nil
		}
		err = errors.Join(err, x.store.Close())
	}
	return nil, fmt.Errorf("open index %s: %w", place.Path, storage.Classify(errors.Join(err, place.Leave())))
}

// begin checks the format, or writes that of a new index, and settles the
// organization.
func (x *Index) begin(config *engine.IndexConfig) error {
	return x.store.Update(func(t Txn) error {
		format, found, err := t.Get(Meta, keyFormat)
		if err != nil {
			return err
		}
		known := binary.BigEndian.AppendUint32(nil, formatVersion)
		if found && string(format) != string(known) {
			return fmt.Errorf("%w: index format %x, this program knows %x", storage.ErrVersion, format, known)
		}
		recorded, there, err := t.Get(Meta, keyOrganization)
		if err != nil {
			return err
		}
		x.organization = storage.OrganizationMode(recorded)
		if config.Organization != "" {
			x.organization = config.Organization
		} else if !there {
			x.organization = storage.OrganizationBySession
		}
		if !found {
			if err := t.Put(Meta, keyFormat, known); err != nil {
				return err
			}
		}
		return t.Put(Meta, keyOrganization, []byte(x.organization))
	})
}

// Organization is the store's mode, as recorded.
func (x *Index) Organization() storage.OrganizationMode { return x.organization }

// Touch notes when a blob was read. It is written with the next change.
func (x *Index) Touch(key storage.BlobKey, at time.Time) { x.touches.Add(key, at) }

// Size is how many bytes the index takes up.
func (x *Index) Size(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	size, err := x.size(x.store)
	return size, x.wrap(err)
}

// Close writes the times of access that wait and closes the store.
func (x *Index) Close() error {
	var err error
	if x.doubt.Err() == nil {
		err = x.change(context.Background(), func(*change) error { return nil })
	}
	return x.wrap(errors.Join(err, x.store.Close(), x.place.Leave()))
}

// wrap adds the identity of the index to an error.
func (x *Index) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("index %s: %w", x.place.Path, storage.Classify(err))
}

// change is a transaction that changes rows.
type change struct {
	Txn
	touched map[storage.BlobKey]time.Time // to be written with it
	delta   storage.Counters
	lane    byte // whose rows of totals and usage are its own
}

// change runs fn in a transaction, together with the times of access that wait.
// fn may run more than once.
func (x *Index) change(ctx context.Context, fn func(*change) error) error {
	if err := x.doubt.Err(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var lane byte
	if x.lanes != nil {
		lane = <-x.lanes
		defer func() { x.lanes <- lane }()
	}
	touched := x.touches.Take()
	var failed error
	err := x.store.Update(func(t Txn) error {
		c := &change{Txn: t, touched: maps.Clone(touched), lane: lane}
		if failed = fn(c); failed == nil {
			failed = c.finish()
		}
		return failed
	})
	if err != nil {
		x.touches.PutBack(touched)
	}
	if err != nil && failed == nil {
		return x.doubt.Raise(err)
	}
	return err
}

// finish writes the touches and what the changes add up to.
func (c *change) finish() error {
	for key, at := range c.touched {
		row, found, err := c.Get(Blobs, []byte(key))
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		blob, err := DecodeBlob(key, row)
		if err != nil {
			return err
		}
		blob.AccessedAt = at
		if err := c.Put(Blobs, []byte(key), EncodeBlob(&blob)); err != nil {
			return err
		}
	}
	if c.delta == (storage.Counters{}) {
		return nil
	}
	key := []byte{c.lane}
	totals, err := readTotals(c, key)
	if err != nil {
		return err
	}
	return c.Put(Totals, key, EncodeTotals(totals.Plus(c.delta)))
}

func readTotals(r Reader, key []byte) (storage.Counters, error) {
	row, found, err := r.Get(Totals, key)
	if err != nil || !found {
		return storage.Counters{}, err
	}
	return decodeTotals(row)
}

// putBlob writes a blob's row, together with the touch that waits for it: the
// transaction may not show its own changes, so nothing else may write it.
func (c *change) putBlob(blob *storage.BlobRow) error {
	if at, waits := c.touched[blob.Key]; waits {
		blob.AccessedAt = at
		delete(c.touched, blob.Key)
	}
	return c.Put(Blobs, []byte(blob.Key), EncodeBlob(blob))
}

func (c *change) deleteBlob(key storage.BlobKey) error {
	delete(c.touched, key)
	return c.Delete(Blobs, []byte(key))
}
