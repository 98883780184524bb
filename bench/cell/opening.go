package cell

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mediabolt/mediabolt/bench"
	"github.com/mediabolt/mediabolt/engine"
)

// openings is how often a store is killed and opened.
const openings = 3

// measureOpening times the opening of a store whose process was killed while it
// stored, and then of the same store closed. Its files are in the kernel's memory
// as far as they fit.
func measureOpening(ctx context.Context, c *Cell, dir string) (*Result, error) {
	r := &Result{Cell: *c}
	var killed, clean []time.Duration
	for range openings {
		if err := kill(ctx, c, dir); err != nil {
			return nil, err
		}
		for _, times := range []*[]time.Duration{&killed, &clean} {
			begin := time.Now()
			s, err := openStore(ctx, c, dir, func(engine.Index) {}, &atomic.Int64{})
			if err != nil {
				return nil, err
			}
			*times = append(*times, time.Since(begin))
			stats, err := s.Stats(ctx)
			if err != nil {
				return nil, err
			}
			r.References = stats.References
			if err := s.Close(); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(killed)
	slices.Sort(clean)
	r.OpenKilled, r.OpenClean = int64(killed[openings/2]), int64(clean[openings/2])
	r.Ops = openings
	return r, nil
}

// kill has a child store for a while and ends it with SIGKILL.
func kill(ctx context.Context, c *Cell, dir string) error {
	cmd, err := command(ctx, task{"victim", *c, dir})
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "stored\n" {
		return fmt.Errorf("victim said %q: %w", line, cmd.Wait())
	}
	time.Sleep(c.Time)
	if err := cmd.Process.Kill(); err != nil {
		return fmt.Errorf("victim ended by itself: %w", err)
	}
	_ = cmd.Wait() // says that it was killed
	return nil
}

// victim stores until it is killed, and says so after the first.
func victim(ctx context.Context, c *Cell, dir string) error {
	storing := *c
	storing.Op = Store
	s, err := openEngine(ctx, &storing, dir)
	if err != nil {
		return err
	}
	if err := s.start(0)(); err != nil {
		return err
	}
	fmt.Println("stored")
	_, err = bench.Rate(ctx, c.Writers, time.Hour, s.start)
	return err
}
