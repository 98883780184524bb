package strategy_test

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/indextest"
)

func conform(t *testing.T, s strategy.Strategy) {
	indextest.Run(t, func(t *testing.T, dir string) engine.Index { return mustOpen(t, s, dir) })
}

// TestConformance runs the suite for every strategy that loses nothing.
func TestConformance(t *testing.T) {
	forEach(t, func(t *testing.T, s strategy.Strategy) {
		if s.Loses == "" {
			conform(t, s)
		}
	})
}

// result is a line of the testing package's report on a case of the suite.
var result = regexp.MustCompile(`(?m)^\s+--- (PASS|FAIL): TestConformanceOfLossy/[^/]+/(\S+) `)

// TestConformanceOfLossy runs the suite for every strategy that does lose
// something, in a process of its own, and requires that exactly those cases fail
// that ask for what is lost.
func TestConformanceOfLossy(t *testing.T) {
	for _, s := range strategy.All() {
		if s.Loses == "" {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			if os.Getenv(childRole) == "conform" {
				conform(t, s)
				return
			}
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestConformanceOfLossy$/^"+s.Name+"$", "-test.v", "-test.timeout=2m",
				"-rapid.nofailfile", "-rapid.shrinktime=0s")
			cmd.Env = append(os.Environ(), childRole+"=conform")
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "nothing failed")
			got := map[string]string{}
			for _, line := range result.FindAllStringSubmatch(string(out), -1) {
				got[line[2]] = line[1]
			}
			require.Equal(t, map[string]string{}, got, "%s", out)
		})
	}
}
