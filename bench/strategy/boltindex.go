package strategy

import (
	"context"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
)

// boltIndex is the index that comes with the engine: operations that wait at the
// same time are one record of a log, which goes to bbolt later.
var boltIndex = Strategy{
	Name: "boltindex",
	Open: func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		index, err := boltindex.Open(ctx, boltindex.Config(config))
		if err != nil {
			return nil, err // an interface that holds a nil pointer is not nil
		}
		return index, nil
	},
}
