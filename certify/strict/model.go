// Package strict is a filesystem, wholly in memory, that makes durable what its
// user has asked for and nothing else.
//
//	the bytes and the size of a file    at a sync of that file
//	the names in a directory            at a sync of that directory
//	everything                          at a sync of the filesystem
//
// A sync of a file says nothing about its names, a sync of a directory nothing
// about the files and directories in it, nor about its own name. A rename
// between two directories is a new name in one and a name less in the other, and
// either may become durable alone; within one directory it is one change.
//
// Whatever is not durable yet may be lost or not, each file and each directory
// by itself (survive.go): of a directory's changes those to one name in their
// order, of a file's changes any of its 4 KiB blocks, torn into sectors, before
// or after its size. No filesystem of today is as harsh, and none is
// kinder than Everything; what holds up here holds on those between.
//
// The kernel's FUSE serves the filesystem (server_linux.go) and every change is
// recorded as an event, so that after one run a cut can be made at each of them.
// A sync of the whole filesystem does not reach a FUSE server; whoever uses the
// mount tells it so with Mount.SyncFS.
package strict

import (
	"maps"
	"slices"
)

const (
	blockSize  = 4096
	sectorSize = 512
)

type block [blockSize]byte

// root is the number of the root directory, as FUSE wants it.
const root = 1

// Model is the state of a filesystem: what it is, and what of it is durable. It
// is not safe for concurrent use.
type Model struct {
	nodes map[uint64]*node
	dirty map[uint64]*node // that have changes which are not durable
	last  uint64           // the highest number of a node
}

// node is a file or a directory. Its number is never used again.
type node struct {
	number uint64
	dir    bool
	mode   uint32 // permissions, durable at once

	now, safe content // of a file
	changes   []change

	names, safeNames map[string]uint64 // of a directory
	moves            []move
}

// content is the bytes of a file. Blocks are shared and never changed; one that
// is not there reads as zeros.
type content struct {
	size   int64
	blocks map[int64]*block
}

// change is one change of a file that is not durable: a block, or the size.
type change struct {
	index int64 // of the block; -1 for a size
	block *block
	size  int64
}

// move is one change of a directory that is not durable: a name that leads to
// another node, or, where to is 0, nowhere. A rename is two that belong
// together.
type move struct {
	name    string
	to      uint64
	renamed string // the name that leads to it from now on, if not ""
}

// NewModel is an empty filesystem, durable.
func NewModel() *Model {
	m := &Model{nodes: map[uint64]*node{}, dirty: map[uint64]*node{}}
	m.add(root, true, 0o700)
	return m
}

func (m *Model) add(number uint64, dir bool, mode uint32) *node {
	n := &node{number: number, dir: dir, mode: mode}
	if dir {
		n.names, n.safeNames = map[string]uint64{}, map[string]uint64{}
	} else {
		n.now.blocks, n.safe.blocks = map[int64]*block{}, map[int64]*block{}
	}
	m.nodes[number] = n
	m.last = max(m.last, number)
	return n
}

// Apply makes what an event says happen.
func (m *Model) Apply(e *Event) {
	switch e.Kind {
	case Create, Mkdir:
		m.add(e.Node, e.Kind == Mkdir, e.Mode)
		m.move(e.Dir, move{name: e.Name, to: e.Node})
	case Link:
		m.move(e.Dir, move{name: e.Name, to: e.Node})
	case Unlink:
		m.move(e.Dir, move{name: e.Name})
	case Rename:
		m.move(e.Dir, move{name: e.Name, to: e.Node, renamed: e.NewName})
	case Write:
		m.write(m.nodes[e.Node], e.At, e.Data)
	case Resize:
		m.resize(m.nodes[e.Node], e.At)
	case Sync:
		m.sync(m.nodes[e.Node])
	case SyncAll:
		for _, n := range m.dirty {
			m.sync(n)
		}
	}
}

func (m *Model) move(dir uint64, v move) {
	n := m.nodes[dir]
	v.apply(n.names)
	n.moves = append(n.moves, v)
	m.dirty[dir] = n
}

func (v *move) apply(names map[string]uint64) {
	if v.to == 0 || v.renamed != "" {
		delete(names, v.name)
	}
	switch {
	case v.renamed != "":
		names[v.renamed] = v.to
	case v.to != 0:
		names[v.name] = v.to
	}
}

func (m *Model) write(n *node, at int64, data []byte) {
	end := at + int64(len(data))
	for len(data) > 0 {
		index, from := at/blockSize, at%blockSize
		b := n.now.copyOf(index)
		took := copy(b[from:], data)
		m.change(n, change{index: index, block: b})
		at += int64(took)
		data = data[took:]
	}
	if end > n.now.size {
		m.change(n, change{index: -1, size: end})
	}
}

// resize also cuts off what is past the new size, so that it reads as zeros when
// the file grows again.
func (m *Model) resize(n *node, size int64) {
	if size < n.now.size {
		for _, index := range slices.Sorted(maps.Keys(n.now.blocks)) {
			switch from := size - index*blockSize; {
			case from <= 0:
				m.change(n, change{index: index})
			case from < blockSize:
				b := n.now.copyOf(index)
				clear(b[from:])
				m.change(n, change{index: index, block: b})
			}
		}
	}
	m.change(n, change{index: -1, size: size})
}

func (m *Model) change(n *node, c change) {
	n.now.apply(&c)
	n.changes = append(n.changes, c)
	m.dirty[n.number] = n
}

func (c *content) apply(v *change) {
	switch {
	case v.index < 0:
		c.size = v.size
	case v.block == nil:
		delete(c.blocks, v.index)
	default:
		c.blocks[v.index] = v.block
	}
}

func (c *content) copyOf(index int64) *block {
	b := new(block)
	if old := c.blocks[index]; old != nil {
		*b = *old
	}
	return b
}

// read fills p as far as the file reaches.
func (c *content) read(p []byte, at int64) int {
	p = p[:max(0, min(int64(len(p)), c.size-at))]
	for done := 0; done < len(p); {
		index, from := (at+int64(done))/blockSize, (at+int64(done))%blockSize
		part := p[done:min(len(p), done+int(blockSize-from))]
		if b := c.blocks[index]; b != nil {
			copy(part, b[from:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p)
}

// sync makes durable what a node is now.
func (m *Model) sync(n *node) {
	for i := range n.changes {
		n.safe.apply(&n.changes[i])
	}
	for i := range n.moves {
		n.moves[i].apply(n.safeNames)
	}
	n.changes, n.moves = nil, nil
	delete(m.dirty, n.number)
}

// lose keeps the bytes that a file has now from ever becoming durable. Its size
// and a directory's names stay what a later sync makes durable: a filesystem
// that cannot write its own structures any more stops.
func (m *Model) lose(n *node) {
	n.changes = slices.DeleteFunc(n.changes, func(c change) bool { return c.index >= 0 })
	if len(n.changes)+len(n.moves) == 0 {
		delete(m.dirty, n.number)
	}
}
