package strategy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/storage"
)

// Lookups are in an index of lookupRefs references, by lookupReaders at a time for
// each core, as a busy service reads.
const (
	lookupRefs    = 2_000
	lookupReaders = 32
)

// BenchmarkLookup measures reading the bare index, opened anew so that nothing of
// it is in a log alone: a blob's row, and a reference with its blob's.
func BenchmarkLookup(b *testing.B) {
	for _, s := range strategy.All() {
		if s.Loses != "" {
			continue // has no references
		}
		b.Run("strategy="+s.Name, func(b *testing.B) {
			dir := b.TempDir()
			x := mustOpen(b, s, dir)
			addAll(b, x, 256, 0, lookupRefs, func(n uint64) uint64 { return n })
			require.NoError(b, x.Close())
			x = mustOpen(b, s, dir)
			defer func() { require.NoError(b, x.Close()) }()
			var keys [lookupRefs]storage.BlobKey
			var ids [lookupRefs]storage.ID
			for i := range keys {
				n := uint64(i) + 1
				keys[i], ids[i] = addition(n, n).Blob.Key, idOf(n, n)
			}
			ctx := context.Background()
			benchmarkLookup(b, "blob", func(i int) error {
				_, err := x.Blob(ctx, keys[i])
				return err
			})
			benchmarkLookup(b, "ref", func(i int) error {
				ref, blob, err := x.Ref(ctx, ids[i])
				if err == nil && (ref.UUID != ids[i].UUID || blob.Key != keys[i]) {
					err = fmt.Errorf("reference %s is %s to %s", ids[i], ref.UUID, blob.Key)
				}
				return err
			})
		})
	}
}

func benchmarkLookup(b *testing.B, op string, look func(i int) error) {
	b.Run("op="+op, func(b *testing.B) {
		b.SetParallelism(lookupReaders)
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := look(rand.IntN(lookupRefs)); err != nil {
					b.Errorf("%s: %v", op, err)
					return
				}
			}
		})
	})
}
