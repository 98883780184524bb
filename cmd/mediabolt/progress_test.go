package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgressInWords(t *testing.T) {
	begun := time.Now().Add(-10 * time.Second)
	p := &progress{what: "verifying", first: 1e9, done: 2e9, total: 5e9, begun: begun}
	require.Regexp(t, `^verifying: 2\.0 GB of 5\.0 GB, (100|99) MB/s, 30s left$`, p.line())
	p = &progress{what: "verifying", unit: "blobs", done: 20_000, total: 50_000, begun: begun}
	require.Regexp(t, `^verifying: 20,000 of 50,000 blobs, (2,000|1,999)/s, 15s left$`, p.line())
	p = &progress{what: "verifying", unit: "blobs", total: 50_000, begun: begun}
	require.Equal(t, "verifying: 0 of 50,000 blobs, 0/s", p.line())
	p = &progress{what: "counting", unit: "blobs", done: 20_000, begun: begun}
	require.Regexp(t, `^counting: 20,000 blobs, (2,000|1,999)/s$`, p.line())
	p = &progress{what: "verifying the index", unit: "blobs", begun: begun}
	require.Equal(t, "verifying the index", p.line())
}

// Another step has a rate of its own, and begins where it does.
func TestProgressSteps(t *testing.T) {
	p := &progress{what: "counting", unit: "blobs", done: 1000, total: 1000, begun: time.Now().Add(-time.Hour)}
	p.step("verifying", "", 500)
	require.Equal(t, "verifying: 500 B, 0 B/s", p.line())
	p.begun = time.Now().Add(-10 * time.Second)
	p.step("verifying", "", 900)
	p.done = 1500
	require.Regexp(t, `^verifying: 1\.5 kB, (100|99) B/s$`, p.line())
}
