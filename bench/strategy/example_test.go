package strategy_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
)

// boltNoSync is boltindex without its syncs.
var boltNoSync = strategy.Strategy{
	Name: "boltindex-nosync",
	Open: func(ctx context.Context, config engine.IndexConfig) (engine.Index, error) {
		config.NoSync = true
		s, _ := strategy.Named("boltindex")
		return s.Open(ctx, config)
	},
	Loses: "by a power cut what the kernel has not written yet",
}

// A strategy opens an index; what it is given is what a store gives it.
func Example() {
	dir, err := os.MkdirTemp("", "strategy-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	defer func() { _ = root.Close() }()
	x, err := boltNoSync.Open(context.Background(), engine.IndexConfig{
		Root: root, Create: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	blob, err := x.Add(context.Background(), addition(1, 1))
	fmt.Println(blob.Refs, err)
	fmt.Println(x.Close())
	// Output:
	// 1 <nil>
	// <nil>
}
