package boltindex

import (
	"bytes"
	"errors"
	"iter"
	"runtime/debug"

	"github.com/tidwall/btree"
)

// table is changed rows in order: bucket and key, and the value, nil where the
// row is gone.
type table = btree.Map[string, []byte]

// tableDegree makes nodes of at most 15 rows: a table is copied on write, node
// by node, for every group.
const tableDegree = 8

func newTable() *table { return btree.NewMap[string, []byte](tableDegree) }

// usualKey is a length in bytes that few keys exceed; longer ones cost another
// allocation.
const usualKey = 128

func tableKey(b bucket, key []byte) string {
	var buf [usualKey]byte
	return string(append(append(buf[:0], byte(b)), key...))
}

// rows is the index at one moment: a state of bbolt and above it what the log has.
type rows struct {
	layers []*table // the newest first; they do not change
	state  *state   // good as long as the view's reading is held
	err    error    // the first that reading met: what was read since is not to be used
}

// get is the value of a row, nil where there is none or it cannot be read. It is
// valid as long as the view is.
func (r *rows) get(b bucket, key []byte) []byte {
	if len(r.layers) > 0 {
		k := tableKey(b, key)
		for _, layer := range r.layers {
			if value, there := layer.Get(k); there {
				return value
			}
		}
	}
	value, err := r.state.get(b, key)
	r.fail(err)
	return value
}

func (r *rows) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// from is the rows of a bucket in order, from a key on, as far as they can be
// read.
func (r *rows) from(b bucket, start []byte) iter.Seq2[[]byte, []byte] { return r.walk(b, start, false) }

// before is the rows of a bucket before a key, the last first, as far as they can
// be read.
func (r *rows) before(b bucket, end []byte) iter.Seq2[[]byte, []byte] { return r.walk(b, end, true) }

func (r *rows) walk(b bucket, key []byte, back bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		c := cursor{state: r.state, bucket: b, back: back}
		c.seek(r.layers, key)
		for c.err == nil {
			key, value, more := c.next()
			if !more || value != nil && !yield(key, value) {
				break
			}
		}
		r.fail(c.err)
	}
}

// cursor merges the layers of a view.
type cursor struct {
	bucket     bucket
	back       bool // from the last row to the first
	state      *state
	bolt       treeCursor
	key, value []byte // of bolt; a nil key is the end
	err        error
	layers     []*layer
}

type layer struct {
	rows btree.MapIter[string, []byte]
	key  string // without the bucket
	more bool
}

// seek goes to the first row that is not before key, or backwards to the last one
// that is.
func (c *cursor) seek(layers []*table, key []byte) {
	c.err = c.bolt.seek(c.state, c.state.trees[c.bucket], key)
	if c.back && c.err == nil {
		c.err = c.bolt.prev(c.state)
	}
	c.takeBolt()
	for _, t := range layers {
		l := &layer{rows: t.Iter()}
		more := l.rows.Seek(tableKey(c.bucket, key))
		switch {
		case c.back && more:
			more = l.rows.Prev()
		case c.back:
			more = l.rows.Last()
		}
		c.settle(l, more)
		c.layers = append(c.layers, l)
	}
}

// sooner says whether the cursor comes to row a before row b.
func (c *cursor) sooner(a, b string) bool {
	if c.back {
		return a > b
	}
	return a < b
}

// takeBolt takes in the row that bolt has come to.
func (c *cursor) takeBolt() {
	c.key, c.value = nil, nil
	if c.err == nil {
		c.key, c.value = c.bolt.row()
	}
}

// settle takes in the row that a layer has come to.
func (c *cursor) settle(l *layer, more bool) {
	l.more = more && l.rows.Key()[0] == byte(c.bucket)
	if l.more {
		l.key = l.rows.Key()[1:]
	}
}

// next is the following row, with a nil value if it is gone, of the newest layer
// that has one.
func (c *cursor) next() (key, value []byte, more bool) {
	key, value, more = c.key, c.value, c.key != nil
	for _, l := range c.layers {
		if l.more && (!more || c.sooner(l.key, string(key))) {
			key, value, more = []byte(l.key), l.rows.Value(), true
		}
	}
	if !more {
		return nil, nil, false
	}
	// The first of equals is the newest, bbolt's the oldest.
	fromLayer := false
	for _, l := range c.layers {
		if !l.more || l.key != string(key) {
			continue
		}
		if !fromLayer {
			value, fromLayer = l.rows.Value(), true
		}
		if c.back {
			c.settle(l, l.rows.Prev())
		} else {
			c.settle(l, l.rows.Next())
		}
	}
	if c.key != nil && bytes.Equal(c.key, key) {
		if c.back {
			c.err = c.bolt.prev(c.state)
		} else {
			c.err = c.bolt.next(c.state)
		}
		c.takeBolt()
	}
	return key, value, true
}

// view runs fn on the index as it is now. fn does no file I/O and calls nothing
// of the caller's.
func (x *Index) view(fn func(*rows) error) error { return x.look(true, fn) }

// look is view for who keeps out install meanwhile, or else keeps the layers: the
// next install changes a copy then.
func (x *Index) look(keep bool, fn func(*rows) error) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // faultsPanic, without an allocation
	// A layer goes when bbolt has its rows. The transaction must not be older.
	x.layersMu.RLock()
	r := rows{layers: x.layers()}
	held, err := x.hold()
	if keep && err == nil && !x.kept.Load() {
		x.kept.Store(true)
	}
	x.layersMu.RUnlock()
	if err != nil {
		return err
	}
	if err := held.see(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	r.state = held.state
	err = fn(&r)
	if r.err != nil {
		return r.err
	}
	return err
}

// row is the value of one row, copied, nil where there is none.
func (x *Index) row(b bucket, key []byte) (value []byte, err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // faultsPanic, without an allocation
	x.layersMu.RLock()
	if layers := x.layers(); len(layers) > 0 {
		k := tableKey(b, key)
		for _, layer := range layers {
			if value, there := layer.Get(k); there {
				x.layersMu.RUnlock()
				return value, nil // is never changed
			}
		}
	}
	held, err := x.hold()
	x.layersMu.RUnlock()
	if err != nil {
		return nil, err
	}
	if err := held.see(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	value, err = held.state.get(b, key)
	return bytes.Clone(value), err
}

// viewBolt runs fn on what bbolt has.
func (x *Index) viewBolt(fn func(*state) error) (err error) {
	return x.look(false, func(r *rows) error { return fn(r.state) })
}
