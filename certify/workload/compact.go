package workload

import (
	"context"
	"sync"

	"github.com/mediabolt/mediabolt/engine"
)

// Compact makes the index smaller.
func (c *Client) Compact(ctx context.Context) error {
	n := c.Journal.Begin(Op{Kind: KindCompact})
	_, err := c.Store.Compact(ctx, engine.CompactOptions{})
	c.Journal.End(n, "", err)
	return err
}

// RunCompaction is a workload of compactions, beside stores and deletions, so short
// that it can be cut after each of its events.
func RunCompaction(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	for range 2 {
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.compact)
	}
	return ctx.Err()
}

// compact compacts an index that has free pages, while it changes.
func (s *script) compact(ctx context.Context) {
	place := Place{Session: "compacted", Conversation: "conversation"}
	var refs []string
	for range 4 {
		refs = append(refs, s.put(ctx, s.content(3000), place))
	}
	s.delete(ctx, refs[0])
	var beside sync.WaitGroup
	beside.Go(func() {
		s.put(ctx, s.content(3000), place)
		s.delete(ctx, refs[1])
		s.put(ctx, s.content(3000), place)
	})
	_ = s.client.Compact(ctx) // the journal has the error
	beside.Wait()
	s.delete(ctx, refs[2])
	// The next one overwrites what the log had for the file that was replaced.
	_ = s.client.Compact(ctx)
	s.put(ctx, s.content(3000), place)
}
