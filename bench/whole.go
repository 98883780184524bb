package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// How blobs of a whole store are spread over directories: so many a conversation,
// and so many conversations a session.
const (
	conversationBlobs    = 20
	sessionConversations = 10
)

// wholeMetadata is that of the n-th reference of a whole store, with all four IDs.
func wholeMetadata(n uint64) storage.MediaMetadata {
	conversation := n / conversationBlobs
	return storage.MediaMetadata{
		SessionID:      fmt.Sprintf("session-%d", conversation/sessionConversations),
		ConversationID: fmt.Sprintf("conv-%d", conversation),
		RunID:          fmt.Sprintf("run-%d", n%1000), UserID: fmt.Sprintf("user-%d", n%10000),
		MessageIndex: int(n % conversationBlobs),
	}
}

// FillWhole makes a store in dir, through the engine and without syncs, with
// references to blobs of their own of size bytes, numbered from first to last: their
// files and sidecars are there too. It adds to a store that is there.
func FillWhole(ctx context.Context, dir string, first, last, size int) (err error) {
	s, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	next.Store(int64(first))
	var wg sync.WaitGroup
	for range manyWriters {
		wg.Go(func() {
			content := NewContent(size)
			for n := next.Add(1) - 1; n <= int64(last) && ctx.Err() == nil; n = next.Add(1) - 1 {
				data := bytes.NewReader(content.Same(uint64(n)))
				if _, err := s.StoreReader(ctx, data, info, wholeMetadata(uint64(n))); err != nil {
					stop(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
