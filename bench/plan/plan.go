// Package plan lists what the profiles measure. A profile is a list of series; a
// series answers one question, and varies what the question is about alone.
package plan

import (
	"fmt"
	"time"

	"github.com/mediabolt/mediabolt/bench/cell"
)

// Series is a question and the cells that answer it.
type Series struct {
	Name     string
	Question string
	Omits    string // what is not in it and why; empty: nothing
	Cells    []cell.Cell
}

// Sizes of blobs, in bytes.
const (
	kib = 1 << 10
	mib = 1 << 20
)

const ours = "boltindex"

var (
	durable = []string{"bbolt-update", "bbolt-batch", ours, "sqlite", "pebble", "badger"}
	all     = append([]string{"json-nosync", "json-sync"}, durable...)
)

// Names are the profiles.
var Names = []string{"quick", "full", "scale"}

// Profile is the series of a profile.
func Profile(name string) ([]Series, error) {
	switch name {
	case "quick": // at most 5 minutes on 2 cores
		return finish(700*time.Millisecond,
			writers([]string{ours, "pebble"}, 1, 16, 64, 256),
			sizes([]int{4 * kib, mib, 16 * mib}, 64),
			duplicates(0, 90),
			reads([]int{100 * kib, mib}, 1),
			operations(all, 10_000, 64),
			growth([]string{"json-nosync"}, 0, 10_000),
			growth([]string{ours, "pebble"}, 0, 10_000, 100_000),
			whole(0, 10_000),
			opening([]string{ours}, 0, 100_000),
			upkeep(10_000)), nil
	case "full": // at most 40
		return finish(2*time.Second,
			writers(all, 1, 16, 64, 256),
			sizes([]int{4 * kib, 100 * kib, mib, 16 * mib}, 1, 64),
			duplicates(0, 50, 90),
			reads([]int{4 * kib, 100 * kib, mib, 16 * mib}, 1, 64),
			operations(all, 100_000, 1, 64),
			growth(all, 0, 10_000, 100_000),
			growth([]string{"bbolt-batch", "pebble", "badger"}, 1_000_000),
			opening(durable, 0, 100_000),
			whole(0, 100_000),
			upkeep(10_000, 100_000),
			whole(1_000_000), opening([]string{ours}, 1_000_000), growth([]string{ours}, 1_000_000)), nil
	case "scale": // 10 million references, at most 40
		return finish(5*time.Second,
			whole(0), opening([]string{ours}, 0), growth([]string{ours}, 0),
			whole(1_000_000), opening([]string{ours}, 1_000_000), growth([]string{ours}, 1_000_000),
			whole(10_000_000), opening([]string{ours}, 10_000_000), growth([]string{ours}, 10_000_000)), nil
	}
	return nil, fmt.Errorf("no such profile: %q; there are %v", name, Names)
}

// finish names the series of the cells and sets how long they are measured.
func finish(d time.Duration, list ...Series) []Series {
	for _, s := range list {
		for i := range s.Cells {
			s.Cells[i].Series, s.Cells[i].Time = s.Name, d
		}
	}
	return list
}

// writers: how do stores per second grow with the writers, on each index, and
// how near is that to the disk's floor?
func writers(indexes []string, counts ...int) Series {
	s := Series{Name: "writers", Question: "How do durable stores of new 100 KiB blobs grow with the writers?"}
	for _, n := range counts {
		c := cell.Cell{Scope: cell.Floor, Op: cell.Create, Size: 100 * kib, Writers: n}
		s.Cells = append(s.Cells, c)
		for _, index := range indexes {
			c.Scope, c.Op, c.Index = cell.Engine, cell.Store, index
			s.Cells = append(s.Cells, c)
		}
	}
	return s
}

// sizes: is the disk or the index the limit, for small and for large blobs?
func sizes(sizes []int, writers ...int) Series {
	s := Series{Name: "sizes", Question: "How near to the disk's floor are stores of small and of large blobs?"}
	for _, size := range sizes {
		for _, n := range writers {
			s.Cells = append(s.Cells,
				cell.Cell{Scope: cell.Floor, Op: cell.Create, Size: size, Writers: n},
				cell.Cell{Scope: cell.Engine, Op: cell.Store, Size: size, Writers: n, Index: ours})
		}
	}
	return s
}

// duplicates: what is gained where contents come again, and what does base64
// cost?
func duplicates(shares ...int) Series {
	s := Series{Name: "duplicates", Question: "What is gained where contents come again, how near is that to hashing alone, and what does base64 cost?"}
	s.Cells = append(s.Cells,
		cell.Cell{Scope: cell.Floor, Op: cell.Create, Size: 100 * kib, Writers: 64},
		cell.Cell{Scope: cell.Floor, Op: cell.SHA256, Size: 100 * kib, Writers: 64})
	for _, dup := range append(shares, 100) {
		for _, op := range []string{cell.Store, cell.StoreText} {
			s.Cells = append(s.Cells, cell.Cell{Scope: cell.Engine, Op: op, Size: 100 * kib, Writers: 64, Dup: dup, Index: ours})
		}
	}
	return s
}

// reads: what do verification and base64 cost over reading a file, and do
// readers scale?
func reads(sizes []int, writers ...int) Series {
	s := Series{Name: "reads", Question: "How do verified reads compare with reading a file?"}
	for _, size := range sizes {
		for _, n := range writers {
			for _, pair := range [][2]string{{cell.ReadBase64, cell.Retrieve}, {cell.ReadFile, cell.Open}} {
				s.Cells = append(s.Cells,
					cell.Cell{Scope: cell.Floor, Op: pair[0], Size: size, Writers: n},
					cell.Cell{Scope: cell.Engine, Op: pair[1], Size: size, Writers: n, Index: ours})
			}
		}
	}
	return s
}

// operations: which index is good at what, without blobs? There are refs
// references to be deleted.
func operations(indexes []string, refs int, writers ...int) Series {
	s := Series{
		Name: "operations", Question: "Which index is good at what, without blobs?",
		Omits: "the JSON strategies have stores alone: references, which the others are about, are not in their file",
	}
	for _, n := range writers {
		for _, op := range []string{cell.Store, cell.Retrieve, cell.DeleteOld, cell.Mixed, cell.List} {
			for _, index := range indexes {
				c := cell.Cell{Scope: cell.Index, Op: op, Size: 100 * kib, Writers: n, Index: index}
				if op == cell.DeleteOld {
					c.Refs = refs
				}
				if !json(index) || op == cell.Store {
					s.Cells = append(s.Cells, c)
				}
			}
		}
		s.Cells = append(s.Cells,
			cell.Cell{Scope: cell.Index, Op: cell.Store, Dup: 100, Size: 100 * kib, Writers: n, Index: ours},
			cell.Cell{Scope: cell.Index, Op: cell.Delete, Size: 100 * kib, Writers: n, Index: ours})
	}
	return s
}

// growth: does latency stay as the index grows, and what does a reference take
// on disk?
func growth(indexes []string, refs ...int) Series {
	s := Series{
		Name: "growth", Question: "Does the latency of an index stay as it grows, and what does a reference take on disk?",
		Omits: "the JSON strategies end at 100 thousand references, and have stores alone: each store writes the whole file anew, " +
			"so that one among millions is a matter of many seconds; `bbolt-update` and `sqlite` end there too, because filling them, " +
			"a transaction for each row, takes minutes; 10 million references are in the profile `scale`, with boltindex alone",
	}
	for _, index := range indexes {
		for _, n := range refs {
			for _, op := range []string{cell.Retrieve, cell.Store, cell.DeleteOld} {
				if json(index) && op != cell.Store || op == cell.DeleteOld && n < cell.Large {
					continue
				}
				s.Cells = append(s.Cells, cell.Cell{Scope: cell.Index, Op: op, Size: 100 * kib, Writers: 64, Refs: n, Index: index})
			}
		}
	}
	return s
}

// whole: what of that does a whole store show?
func whole(refs ...int) Series {
	s := Series{Name: "whole", Question: "Does a whole store stay fast as its index grows?"}
	for _, n := range refs {
		for _, op := range []string{cell.Retrieve, cell.Open, cell.Mixed, cell.List, cell.Store, cell.DeleteOld} {
			s.Cells = append(s.Cells, cell.Cell{Scope: cell.Engine, Op: op, Size: 100 * kib, Writers: 64, Refs: n, Index: ours})
		}
	}
	return s
}

// opening: how long does a start take, after a stop and after a kill?
func opening(indexes []string, refs ...int) Series {
	s := Series{Name: "opening", Question: "How long does a store take to open, after Close and after kill -9?"}
	for _, index := range indexes {
		for _, n := range refs {
			s.Cells = append(s.Cells, cell.Cell{Scope: cell.Engine, Op: cell.Opening, Size: 4 * kib, Writers: 64, Refs: n, Index: index})
		}
	}
	return s
}

// upkeep: what does it take to go over all of a store?
func upkeep(refs ...int) Series {
	s := Series{
		Name: "upkeep", Question: "How long, and in how much memory, is all of a store verified, backed up, and its index rebuilt?",
		Omits: "the other indexes, and a million blobs: to make their two million files takes more than all else",
	}
	for _, n := range refs {
		for _, op := range []string{cell.Verify, cell.Backup, cell.Rebuild} {
			s.Cells = append(s.Cells, cell.Cell{Scope: cell.Engine, Op: op, Size: kib, Writers: 1, Refs: n, Index: ours})
		}
	}
	return s
}

func json(index string) bool { return index == "json-nosync" || index == "json-sync" }
