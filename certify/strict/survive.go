package strict

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Keep is what a cut leaves of what is not durable.
type Keep uint8

// What a cut can leave.
const (
	Nothing    Keep = iota // only what is durable
	Everything             // as if the process had been killed
	Some                   // each file's and each directory's share, by a seed
)

// Choice is what one cut leaves. Seed is for Some alone.
type Choice struct {
	Keep Keep
	Seed uint64
}

func (c Choice) String() string {
	switch c.Keep {
	case Nothing:
		return "nothing"
	case Everything:
		return "everything"
	}
	return fmt.Sprintf("some:%d", c.Seed)
}

// Tree is what is left after a cut.
type Tree struct {
	dirs  map[uint64]map[string]uint64
	files map[uint64]*content
	modes map[uint64]uint32
}

// Survive makes a cut now. The model is as it was afterwards.
func (m *Model) Survive(c Choice) *Tree {
	t := &Tree{dirs: map[uint64]map[string]uint64{}, files: map[uint64]*content{}, modes: map[uint64]uint32{}}
	r := rand.New(rand.NewPCG(c.Seed, 0x637574))
	for _, number := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[number]
		t.modes[number] = n.mode
		switch {
		case n.dir && (c.Keep == Nothing || len(n.moves) == 0):
			t.dirs[number] = n.safeNames
		case n.dir && c.Keep == Everything:
			t.dirs[number] = n.names
		case n.dir:
			t.dirs[number] = n.someNames(r)
		case c.Keep == Nothing || len(n.changes) == 0:
			t.files[number] = &n.safe
		case c.Keep == Everything:
			t.files[number] = &n.now
		default:
			t.files[number] = n.someContent(r)
		}
	}
	return t
}

// odds are how likely it is that a change survives, in percent: few, half, most.
var odds = [...]int{10, 50, 90}

// someNames are a directory's names after nothing, all, the first, or any of its
// changes. When one is lost, so are all later ones to the same names.
func (n *node) someNames(r *rand.Rand) map[string]uint64 {
	names := maps.Clone(n.safeNames)
	moves := n.moves
	percent := odds[r.IntN(len(odds))]
	switch r.IntN(4) {
	case 0:
		return names
	case 1:
		percent = 100
	case 2:
		moves, percent = moves[:r.IntN(len(moves)+1)], 100
	}
	lost := map[string]bool{}
	for i := range moves {
		v := &moves[i]
		if r.IntN(100) >= percent || lost[v.name] || lost[v.renamed] {
			lost[v.name] = true
			if v.renamed != "" {
				lost[v.renamed] = true
			}
			continue
		}
		v.apply(names)
	}
	return names
}

// someContent is a file after nothing, all, the first, or any of its changes: a
// block is then one that was written, or a mixture of its sectors, and the size
// any that the file has had.
func (n *node) someContent(r *rand.Rand) *content {
	c := &content{size: n.safe.size, blocks: maps.Clone(n.safe.blocks)}
	changes := n.changes
	percent := odds[r.IntN(len(odds))]
	torn := r.IntN(2) == 0
	switch r.IntN(4) {
	case 0:
		return c
	case 1:
		percent = 100
	case 2:
		changes, percent = changes[:r.IntN(len(changes)+1)], 100
	}
	for i := range changes {
		v := changes[i]
		if r.IntN(100) >= percent {
			continue
		}
		if torn && percent < 100 && v.block != nil {
			v.block = tear(r, c.blocks[v.index], v.block)
		}
		c.apply(&v)
	}
	return c
}

// tear is a block of which some sectors were written.
func tear(r *rand.Rand, old, new *block) *block {
	b := *new
	for at := 0; at < blockSize; at += sectorSize {
		if r.IntN(4) > 0 {
			continue
		}
		if old == nil {
			clear(b[at : at+sectorSize])
		} else {
			copy(b[at:at+sectorSize], old[at:])
		}
	}
	return &b
}
