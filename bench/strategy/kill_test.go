package strategy_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

const (
	killWriters = 8
	// killAfter is how many acknowledged references a kill waits for.
	killAfter = 200
	// killBlobs is how many blobs the references of a killed process share.
	killBlobs = 40
)

// storeUntilKilled adds references and says the number of each on standard output
// once it has been acknowledged.
func storeUntilKilled(name, dir string) {
	s, _ := strategy.Named(name)
	root, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	x, err := s.Open(context.Background(), engine.IndexConfig{Root: root, Create: true})
	if err != nil {
		panic(err)
	}
	var next atomic.Uint64
	var writers sync.WaitGroup
	for range killWriters {
		writers.Go(func() {
			for {
				n := next.Add(1)
				if _, err := x.Add(context.Background(), addition(n, n%killBlobs)); err != nil {
					panic(err)
				}
				fmt.Println(n) // one write each, so what is printed before a kill is whole
			}
		})
	}
	writers.Wait()
}

// TestKill kills a process that adds references, and requires of every strategy
// that it has afterwards exactly what it promises: all that was acknowledged, or,
// of those which lose references, none of them.
func TestKill(t *testing.T) {
	forEach(t, func(t *testing.T, s strategy.Strategy) {
		dir := t.TempDir()
		acknowledged := killed(t, s, dir)
		x := mustOpen(t, s, dir)
		defer func() { require.NoError(t, x.Close()) }()
		lost := 0
		for _, n := range acknowledged {
			ref, _, err := x.Ref(context.Background(), idOf(n, n%killBlobs))
			if err != nil {
				require.ErrorIs(t, err, storage.ErrNotFound)
				lost++
				continue
			}
			require.Equal(t, addition(n, n%killBlobs).Ref, ref)
		}
		t.Logf("%d references acknowledged, %d lost by the kill", len(acknowledged), lost)
		counters, err := x.Counters(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, killBlobs, counters.Blobs, "a killed process loses no blob's row, synced or not")
		if s.Loses == "" {
			require.Zero(t, lost)
			require.GreaterOrEqual(t, counters.Refs, int64(len(acknowledged)))
			mustVerify(t, x)
			return
		}
		require.Equal(t, len(acknowledged), lost, "says that it loses: %s", s.Loses)
		findings, err := x.Verify(context.Background())
		require.NoError(t, err)
		require.Len(t, findings, killBlobs, "every refcount counts references that are gone")
	})
}

// killed runs a process that adds references until it is killed, and returns the
// numbers of those that were acknowledged.
func killed(t *testing.T, s strategy.Strategy, dir string) []uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"=store", childStrategy+"="+s.Name, childDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var numbers []uint64
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		require.NoError(t, err, "%s", stderr.String())
		if numbers = append(numbers, n); len(numbers) == killAfter {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait())
	require.False(t, cmd.ProcessState.Exited(), "ended by itself: %s", stderr.String())
	require.GreaterOrEqual(t, len(numbers), killAfter)
	return numbers
}
