package boltindex

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// state is bbolt's file as one transaction has left it, read past bbolt: page by
// page, each checked before it is followed. bbolt trusts its pages; a damaged
// one could send it round in circles, or be taken for good. A transaction of
// bbolt must be open, so that no page is written over meanwhile.
type state struct {
	pages *pageFile
	txid  uint64
	end   uint64
	trees [buckets]tree
}

// maxDepth bounds the way down a tree. bbolt has two pages below each at least.
const maxDepth = 32

var errTooDeep = fmt.Errorf("%w: more than %d pages of the index above each other", storage.ErrCorrupted, maxDepth)

// state is what a transaction sees; a writing one, before it writes.
func (f *boltFile) state(tx *bolt.Tx) (*state, error) {
	txid := uint64(tx.ID())
	if tx.Writable() {
		txid-- // the number that it will have written
	}
	if s := f.last.Load(); s != nil && s.txid == txid {
		return s, nil
	}
	s := &state{pages: f.pages, txid: txid, end: uint64(tx.Size() / f.pages.size)}
	root := tree{page: uint64(tx.Cursor().Bucket().Root())}
	for b, name := range bucketNames {
		leaf, i, err := s.find(root, name)
		if err == nil && leaf == nil {
			err = fmt.Errorf("%w: no bucket %s", storage.ErrCorrupted, name)
		}
		if err == nil {
			s.trees[b], err = parseBucket(leaf.value(i))
		}
		if err != nil {
			return nil, err
		}
	}
	f.last.Store(s)
	return s, nil
}

func (s *state) page(id uint64) (page, error) { return s.pages.page(id, s.txid, s.end) }

// get is the value of a row, nil where there is none.
func (s *state) get(b bucket, key []byte) ([]byte, error) {
	leaf, i, err := s.find(s.trees[b], key)
	if leaf == nil || err != nil {
		return nil, err
	}
	return leaf.value(i), nil
}

// find is the place of a row, in a nil page where there is none.
func (s *state) find(t tree, key []byte) (page, int, error) {
	p, err := s.root(t)
	for depth := 1; err == nil && !p.leaf(); depth++ {
		if depth == maxDepth {
			return nil, 0, errTooDeep
		}
		p, err = s.page(p.child(p.follow(key)))
	}
	if err != nil {
		return nil, 0, err
	}
	if i := p.search(key); i < p.count() && string(p.key(i)) == string(key) {
		return p, i, nil
	}
	return nil, 0, nil
}

func (s *state) root(t tree) (page, error) {
	if t.page == 0 {
		return t.inline, nil
	}
	return s.page(t.page)
}

// follow is the element of a branch below which a key belongs.
func (p page) follow(key []byte) int {
	i := p.search(key)
	if i == p.count() || i > 0 && string(p.key(i)) != string(key) {
		i--
	}
	return i
}

// treeCursor goes through the rows of a tree in order, or in reverse.
type treeCursor struct {
	path  [maxDepth]step // from the root to the leaf
	depth int            // of the leaf
}

// step is an element of a page.
type step struct {
	page page
	at   int
}

// seek goes to the first row that is not before key.
func (c *treeCursor) seek(s *state, t tree, key []byte) error {
	p, err := s.root(t)
	if err != nil {
		return err
	}
	c.depth, c.path[0] = 0, step{page: p}
	for !p.leaf() {
		c.path[c.depth].at = p.follow(key)
		if p, err = c.down(s); err != nil {
			return err
		}
	}
	c.path[c.depth].at = p.search(key)
	return c.settle(s)
}

func (c *treeCursor) next(s *state) error {
	c.path[c.depth].at++
	return c.settle(s)
}

// prev goes to the row before, from the end to the last.
func (c *treeCursor) prev(s *state) error {
	c.path[c.depth].at--
	for {
		here := c.path[c.depth]
		switch {
		case here.at < 0 && c.depth == 0:
			return nil // before the first
		case here.at < 0:
			c.depth--
			c.path[c.depth].at--
		case here.page.leaf():
			return nil
		default:
			p, err := c.down(s)
			if err != nil {
				return err
			}
			c.path[c.depth].at = p.count() - 1
		}
	}
}

// down goes to the page that the element of a branch points to.
func (c *treeCursor) down(s *state) (page, error) {
	if c.depth == maxDepth-1 {
		return nil, errTooDeep
	}
	here := c.path[c.depth]
	p, err := s.page(here.page.child(here.at))
	if err == nil {
		c.depth++
		c.path[c.depth] = step{page: p}
	}
	return p, err
}

// settle goes on to the next leaf when this one is at its end.
func (c *treeCursor) settle(s *state) error {
	for c.atEnd() && c.depth > 0 {
		c.depth--
		c.path[c.depth].at++
		for !c.atEnd() && !c.path[c.depth].page.leaf() {
			if _, err := c.down(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *treeCursor) atEnd() bool { return c.path[c.depth].at >= c.path[c.depth].page.count() }

// row is the row that the cursor is at, with a nil key at either end.
func (c *treeCursor) row() (key, value []byte) {
	at := c.path[c.depth]
	if at.at < 0 || c.atEnd() {
		return nil, nil
	}
	return at.page.key(at.at), at.page.value(at.at)
}

// checkPaths reads every page that bbolt may look at to change these rows: those
// on the way to each row, and their neighbours on every level, be it under another
// branch, with which bbolt merges a page that has become too small. (Where it merges
// with a page further away, all in between had rows to change.) It looks at
// the rows from a key on, as far as they are in so many leaves, and answers whether
// there are more and with what key those begin.
func (s *state) checkPaths(changes *table, from string, leaves int) (next string, more bool, err error) {
	seen := 0
	var last bucket
	var bound []byte // of the leaf that was read last: rows before it are there; nil: all of its bucket that come
	changes.Ascend(from, func(k string, _ []byte) bool {
		b, key := bucket(k[0]), k[1:]
		if seen > 0 && b == last && (bound == nil || key < string(bound)) {
			return true
		}
		if seen == leaves {
			next, more = k, true
			return false
		}
		seen++
		bound, err = s.checkPath(s.trees[b], []byte(key))
		last = b
		return err == nil
	})
	return next, more, err
}

// checkPath is checkPaths for one row, and answers where the next leaf begins:
// nil where there is none.
func (s *state) checkPath(t tree, key []byte) (bound []byte, err error) {
	p, err := s.root(t)
	var left, right page // on the level of p, nil where it is the first or last
	for depth := 1; err == nil && !p.leaf(); depth++ {
		if depth == maxDepth {
			return nil, errTooDeep
		}
		at := p.follow(key)
		if left, err = s.neighbour(p, at-1, left, -1); err != nil {
			return nil, err
		}
		if at+1 < p.count() {
			bound = p.key(at + 1)
		}
		if right, err = s.neighbour(p, at+1, right, 0); err != nil {
			return nil, err
		}
		p, err = s.page(p.child(at))
	}
	return bound, err
}

// neighbour is the page below an element of a branch, or if it has no such element
// the nearest one below the branch beside it: its last where from is -1, its
// first where from is 0.
func (s *state) neighbour(p page, at int, beside page, from int) (page, error) {
	if at >= 0 && at < p.count() {
		return s.page(p.child(at))
	}
	if beside == nil || beside.leaf() || beside.count() == 0 {
		return nil, nil
	}
	return s.page(beside.child((from + beside.count()) % beside.count()))
}
