package certify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// orders are what a victim is told to do, in JSON on its standard input.
type orders struct {
	Dir          string                   `json:"dir"`
	Dedup        bool                     `json:"dedup"`
	Scope        engine.DedupScope        `json:"scope"`
	Quota        engine.Quota             `json:"quota"`
	MinFree      int64                    `json:"min_free"` // bytes
	Organization storage.OrganizationMode `json:"organization"`
	Seed         uint64                   `json:"seed"`
	Round        int                      `json:"round"`
	Keep         int                      `json:"keep"` // references of each goroutine
}

// fewFree is how much may be written in some rounds until MinFreeBytes refuses more.
const fewFree = 8 << 20

// newOrders are those of a round, by chance.
func newOrders(r *rand.Rand, dir string, seed uint64, round, keep int) (*orders, error) {
	modes, t := storage.OrganizationModes(), randomTerms(r)
	o := &orders{
		Dir: dir, Dedup: t.dedup, Scope: t.scope, Organization: modes[r.IntN(len(modes))],
		Seed: seed, Round: round, Keep: keep, Quota: quotaOf(keep),
	}
	if r.IntN(4) != 0 {
		return o, nil
	}
	free, err := freeSpace(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("free space of %s: %w", filepath.Dir(dir), storage.Classify(err))
	}
	o.MinFree = max(0, free-fewFree)
	return o, nil
}

// lockTimeout is how long a store is waited for that another process has just
// let go: a killed process lets go when the kernel is done with it.
const lockTimeout = 10 * time.Second

func (o *orders) config() engine.FileStoreConfig {
	return engine.FileStoreConfig{
		BaseDir: o.Dir, EnableDeduplication: o.Dedup, DedupScope: o.Scope, Organization: o.Organization, LockTimeout: lockTimeout,
		Quota: o.Quota, MinFreeBytes: o.MinFree,
	}
}

// Victim is the process that is killed: it reads its orders from in, works on a
// store, and writes each of its steps to out at once, in one Write, so that
// what was said before a kill reaches whoever has the other end. When ctx is
// done it closes the store in the middle of the work and returns nil.
func Victim(ctx context.Context, in io.Reader, out io.Writer) error {
	var o orders
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("victim's orders: %w", err)
	}
	var mu sync.Mutex // held while a line is written
	say := func(n note) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(out, n.String()+"\n") // whoever would be told is gone
	}
	err := o.carryOut(ctx, say)
	switch {
	case err == nil:
		say(note{verb: verbClosed})
	case hindered(err):
		say(note{verb: verbHindered, text: err.Error()})
	default:
		say(note{verb: verbBroken, text: err.Error()})
	}
	return err
}

// carryOut works until ctx is done, and closes the store over the heads of the
// crew.
func (o *orders) carryOut(ctx context.Context, say func(note)) error {
	store, err := engine.Open(ctx, o.config())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	say(note{verb: verbReady})
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- store.Close() })
	c := &crew{store: store, say: say, seed: o.Seed, round: o.Round, keep: o.Keep}
	err = c.work(context.WithoutCancel(ctx))
	if stop() {
		closed <- store.Close()
	}
	return errors.Join(err, <-closed)
}
