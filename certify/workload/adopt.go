package workload

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// RunAdoption is a workload of adoptions alone, one that comes to its end and one that
// is left in the middle, so short that it can be cut after each of its events.
func RunAdoption(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	for _, ends := range []bool{true, false, true} {
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, func(ctx context.Context) { s.adopt(ctx, ends) })
	}
	return ctx.Err()
}

// adopt adopts some content, part of it before the record is synced and part after.
func (s *script) adopt(ctx context.Context, ends bool) {
	a, err := s.client.Adopt(ctx)
	if err != nil {
		return // the journal has the error
	}
	again := s.content(3000)
	for i := range 5 {
		content := again
		if i%2 == 0 {
			content = s.content(2000 + i)
		}
		s.mu.Lock()
		place := Place{Session: "adopted", Origin: fmt.Sprintf("/old/%d/%d", s.made, i)}
		s.mu.Unlock()
		_ = s.client.Arrive(ctx, a, content, place)
		if i == 2 {
			_ = s.client.SyncAdoption(ctx, a)
		}
	}
	if ends {
		_ = s.client.EndAdoption(a)
	}
}

// Adopt begins an adoption.
func (c *Client) Adopt(ctx context.Context) (*engine.Adoption, error) {
	n := c.Journal.Begin(Op{Kind: KindAdopt})
	a, err := c.Store.Adopt(ctx)
	c.Journal.End(n, "", err)
	return a, err
}

// Arrive stores content that has an origin.
func (c *Client) Arrive(ctx context.Context, a *engine.Adoption, content Content, place Place) error {
	n := c.Journal.Begin(Op{Kind: KindStoreReader, Content: content, Place: place})
	_, err := c.stored(n)(a.StoreReader(ctx, io.LimitReader(content.stream(), int64(content.Size)), engine.Arrival{
		Origins: []string{place.Origin}, Info: storage.MediaInfo{MimeType: mimeType}, Metadata: metadata(n, place),
	}))
	return err
}

// SyncAdoption makes durable what an adoption has recorded.
func (c *Client) SyncAdoption(ctx context.Context, a *engine.Adoption) error {
	n := c.Journal.Begin(Op{Kind: KindAdopt})
	err := a.Sync(ctx)
	c.Journal.End(n, "", err)
	return err
}

// EndAdoption ends an adoption.
func (c *Client) EndAdoption(a *engine.Adoption) error {
	n := c.Journal.Begin(Op{Kind: KindAdopt})
	err := a.Close()
	c.Journal.End(n, "", err)
	return err
}

// compareOrigins has the store find what was adopted by where it came from, and
// nothing else.
func (j *judge) compareOrigins(ctx context.Context, f *engine.FileStore) {
	there := map[string]string{}
	for id, e := range j.verdict.present {
		origin, adopted := e.Metadata.Labels[engine.AdoptedFrom]
		if !adopted {
			continue
		}
		if other, twice := there[origin]; twice {
			j.add("what is adopted is there once", 0, id, "%s came from %s as well", other, origin)
		}
		there[origin] = id
		if ref, err := f.Resolve(ctx, origin); err != nil || ref.ID != id {
			j.add("what was adopted is found by its origin", 0, id, "%s: found %v: %v", origin, ref, err)
		}
	}
	for i := range j.ops {
		origin := j.ops[i].Place.Origin
		if origin == "" || there[origin] != "" {
			continue
		}
		if ref, err := f.Resolve(ctx, origin); !errors.Is(err, storage.ErrNotFound) {
			j.add("what was not adopted is not found", j.ops[i].Number, "", "%s: found %v: %v", origin, ref, err)
		}
	}
}
