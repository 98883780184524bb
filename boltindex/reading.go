package boltindex

import (
	"errors"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// reading is a read transaction of bbolt, and the state that it sees. Between two
// flushes all views share one: to begin a transaction and to end it, two locks of
// bbolt's each and a search of its list, was a quarter of a lookup of a blob. A flush begins
// with none, for bbolt neither uses pages again that an open one may see nor makes
// its map anew; whoever reads meanwhile has one of his own.
type reading struct {
	on    *boltFile
	tx    *bolt.Tx
	state *state       // nil until see
	users atomic.Int64 // views, and the Index as long as it shares it
}

// hold is the shared reading, or a new one where none is shared, which see makes
// ready. The caller holds layersMu, and calls release in the end.
func (x *Index) hold() (*reading, error) {
	if r := x.shared; r != nil {
		r.users.Add(1)
		return r, nil
	}
	return x.newReading()
}

func (x *Index) newReading() (*reading, error) {
	f := x.bolt
	tx, err := f.db.Begin(false)
	if err != nil {
		return nil, err
	}
	f.users.Add(1)
	r := &reading{on: f, tx: tx}
	r.users.Store(1)
	return r, nil
}

// see reads what a new reading begins with, and releases one of which that cannot
// be read.
func (r *reading) see() (err error) {
	if r.state != nil {
		return nil
	}
	defer func() {
		if r.state == nil { // also when reading pages faults: bbolt cannot close while a transaction is open
			err = errors.Join(err, r.release())
		}
	}()
	r.state, err = r.on.state(r.tx)
	return err
}

// release ends the reading with its last user.
func (r *reading) release() error {
	if r.users.Add(-1) > 0 {
		return nil
	}
	err := r.tx.Rollback()
	r.on.letGoSoon()
	return err
}

// unshare has the shared reading end with the views that use it. After it every
// view begins one of its own, until share.
func (x *Index) unshare() error {
	x.layersMu.Lock()
	r := x.shared
	x.shared = nil
	x.layersMu.Unlock()
	if r == nil {
		return nil
	}
	return r.release()
}

// share has views share a reading of bbolt as it is now, where one can be had: it
// only saves time. No flush may be under way.
func (x *Index) share() {
	if x.bolt.stuck.Load() {
		return // bbolt may never let go of its locks
	}
	r, err := x.newReading()
	if err == nil {
		err = r.seeGuarded()
	}
	if err != nil {
		x.log.Warn("each read of the index begins a transaction of its own", "index", x.path, "error", err)
		return
	}
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	x.shared = r
}

// seeGuarded is see for who does not guard himself against damaged pages.
func (r *reading) seeGuarded() (err error) {
	defer guard(&err)
	defer faultsPanic()()
	return r.see()
}
