package bench

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// parallel runs b.N operations in about writers goroutines.
func parallel(b *testing.B, writers int, start func(writer int) func() error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(max(1, writers/2)) // per core; measured on two
	writer := 0
	ops := make(chan func() error, writers)
	for range writers {
		ops <- start(writer)
		writer++
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		op := <-ops
		defer func() { ops <- op }()
		for pb.Next() {
			if err := op(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func mustOpen(b *testing.B) *engine.FileStore {
	b.Helper()
	s, err := OpenStore(b.TempDir())
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, CloseWhole(context.Background(), s)) })
	return s
}

func BenchmarkStore(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10, 1 << 20} {
		for _, writers := range []int{1, 64} {
			name := fmt.Sprintf("size=%dk/writers=%d", size>>10, writers)
			b.Run(name+"/subject=floor", func(b *testing.B) {
				disk, err := NewDiskFloor(b.TempDir())
				require.NoError(b, err)
				b.SetBytes(int64(size))
				parallel(b, writers, func(w int) func() error { return disk.Writer(w, size) })
			})
			b.Run(name+"/subject=mediabolt", func(b *testing.B) {
				s := mustOpen(b)
				b.SetBytes(int64(size))
				parallel(b, writers, func(int) func() error { return StoreNew(s, size) })
				b.StopTimer()
				stats, err := s.Stats(context.Background())
				require.NoError(b, err)
				require.EqualValues(b, b.N, stats.Blobs)
			})
		}
	}
}

func BenchmarkStorePresent(b *testing.B) {
	for _, encoded := range []bool{false, true} {
		b.Run(fmt.Sprintf("size=100k/writers=64/base64=%t", encoded), func(b *testing.B) {
			s := mustOpen(b)
			require.NoError(b, Preload(s, storeSize))
			b.SetBytes(storeSize)
			parallel(b, manyWriters, func(int) func() error { return StorePresent(s, storeSize, encoded) })
			b.StopTimer()
			stats, err := s.Stats(context.Background())
			require.NoError(b, err)
			require.EqualValues(b, present, stats.Blobs)
			require.EqualValues(b, present+b.N, stats.References)
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s := mustOpen(b)
	ref, err := s.StoreReader(context.Background(), bytes.NewReader(NewContent(readSize).Next()), info, storage.MediaMetadata{})
	require.NoError(b, err)
	file := filepath.Join(b.TempDir(), "floor")
	require.NoError(b, writeFile(s, ref, file))
	for _, r := range []struct {
		name string
		op   func() error
	}{
		{"readfile", ReadFloor(file, false)}, {"open", OpenRead(s, ref, false)}, {"open-one-buffer", OpenRead(s, ref, true)},
		{"readfile-base64", ReadFloor(file, true)}, {"retrieve", Retrieve(s, ref)},
	} {
		b.Run("size=1m/subject="+r.name, func(b *testing.B) {
			b.SetBytes(readSize)
			b.ReportAllocs()
			for b.Loop() {
				if err := r.op(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
