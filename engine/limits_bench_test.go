package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// BenchmarkLimits compares durable stores of new content by 64 writers, and of
// content that is there, without limits and with those that let everything in. The
// writers have 8 users and 64 sessions.
func BenchmarkLimits(b *testing.B) {
	const writers, most = 64, 1 << 50
	for _, kind := range []string{"new", "present"} {
		for _, c := range []struct {
			limits string
			config engine.FileStoreConfig
		}{
			{"none", engine.FileStoreConfig{}},
			{"total", engine.FileStoreConfig{Quota: engine.Quota{TotalBytes: most}}},
			{"free", engine.FileStoreConfig{MinFreeBytes: 1}},
			{"all", engine.FileStoreConfig{Quota: engine.Quota{TotalBytes: most, UserBytes: most, SessionBytes: most}, MinFreeBytes: 1}},
		} {
			b.Run(fmt.Sprintf("size=4k/writers=%d/content=%s/limits=%s", writers, kind, c.limits), func(b *testing.B) {
				config := c.config
				config.BaseDir, config.EnableDeduplication = b.TempDir(), true
				f := mustOpen(b, config)
				b.SetBytes(4 << 10)
				b.ReportAllocs()
				b.SetParallelism(writers / 2) // per core; measured on two
				var made, writer atomic.Uint64
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					w := writer.Add(1)
					m := storage.MediaMetadata{UserID: fmt.Sprint("user-", w%8), SessionID: fmt.Sprint("session-", w)}
					for data := make([]byte, 4<<10); pb.Next(); {
						if kind == "new" {
							binary.LittleEndian.PutUint64(data, made.Add(1))
						}
						if _, err := f.Store(context.Background(), content(data), m); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.StopTimer()
				require.EqualValues(b, b.N, mustStats(b, f).References)
			})
		}
	}
}
