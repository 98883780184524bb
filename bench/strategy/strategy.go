// Package strategy has the ways to keep an index that the benchmarks compare, all
// behind engine.Index and with the same work in every change: the blob's row, the
// reference's row, the lists of its IDs, the refcount, the totals, and what the
// tree is owed.
//
// To add one, write a file that makes a Strategy, and name it in All.
package strategy

import (
	"context"

	"github.com/mediabolt/mediabolt/engine"
)

// Strategy is a way to keep an index.
type Strategy struct {
	Name string
	// Open opens an index; it fits engine.FileStoreConfig.OpenIndex.
	Open func(ctx context.Context, config engine.IndexConfig) (engine.Index, error)
	// Loses says in words what the strategy does not keep although the change had
	// returned. Empty: it keeps everything, also through a power cut.
	Loses string
}

// All lists the strategies.
func All() []Strategy {
	return []Strategy{
		jsonNoSync,
		jsonSync,
		bboltUpdate,
		bboltBatch,
		boltIndex,
		sqlite,
		pebbleSynced,
		badgerSynced,
	}
}

// Named is the strategy of that name, false if there is none.
func Named(name string) (Strategy, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Strategy{}, false
}
