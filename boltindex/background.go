package boltindex

import (
	"context"
	"errors"
	"sync"
	"time"
)

// DefaultCompactAt is the default of Config.CompactAt, in bytes: the room that a
// compaction gives back pays for its writing.
const DefaultCompactAt = 16 << 20

// compactPause is the least time between two compactions that nobody has asked for,
// also where one has failed.
const compactPause = 10 * time.Minute

// background is the compactions that nobody has asked for.
type background struct {
	at     int64 // bytes of free pages; negative: never
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
	next   time.Time // not before; used by the flusher alone
}

func (x *Index) startBackground(at int64) {
	b := &x.background
	if b.at = at; at == 0 {
		b.at = DefaultCompactAt
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
}

// stopBackground ends what is under way. The flusher has ended.
func (x *Index) stopBackground() {
	x.background.cancel()
	x.background.all.Wait()
}

// compactIfWorth begins a compaction where most of the file is free.
func (x *Index) compactIfWorth() {
	b := &x.background
	if b.at < 0 || !canReplace || time.Now().Before(b.next) {
		return
	}
	size, free, err := x.extent()
	if err != nil || free < b.at || free <= size/2 {
		return // whoever flushes next meets the error as well
	}
	b.next = time.Now().Add(compactPause)
	b.all.Go(func() {
		done, err := x.Compact(b.ctx, false, nil)
		switch {
		case err == nil && x.compacted != nil:
			x.compacted(done)
		case err != nil && !errors.Is(err, context.Canceled):
			x.log.Warn("the index was not compacted", "index", x.path, "free", free, "error", err)
		}
	})
}
