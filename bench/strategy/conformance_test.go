package strategy_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
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

// keptByLossy are the cases that leave nothing which could be lost.
var keptByLossy = []string{
	"an_empty_index", "end_what_is_due", "concurrent_removals_of_one_reference", "newest_first_while_references_come_and_go", "remove_the_last",
}

// failedByLossy are the cases that ask, after they have opened the index again, for
// what is lost. All others fail only when it is opened again at their end: the
// refcounts count references that are gone.
var failedByLossy = []string{
	"add_unstaged_to_a_blob_that_is_not_there", "blobs_of_scopes", "blobs_of_their_own", "cancelled_contexts", "counters", "debt", "durability",
	"a_reference_that_counts_several", "every_field_round-trips", "IDs_of_many_references", "lists_by_digest", "model", "move_a_blob", "move_to_the_path_that_it_has", "owe",
	"newest_first", "references_by_expiry", "remove_one_of_several", "revise", "settle", "times", "touch",
	"usage_of_sessions_and_users",
}

// tooLongForLossy is a case that is left out: its 2500 changes would each write a
// file of up to 2500 entries anew.
const tooLongForLossy = "settle_much"

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
			results := conformInChild(t, s)
			var kept, failed, reopened []string
			for name, passed := range results {
				whole, again := strings.CutSuffix(name, "/reopened")
				_, gotThere := results[name+"/reopened"]
				switch {
				case again && passed:
					require.True(t, results[whole])
				case again:
					reopened = append(reopened, whole)
				case passed:
					kept = append(kept, name)
				case !gotThere:
					failed = append(failed, name)
				}
			}
			require.ElementsMatch(t, keptByLossy, kept)
			require.ElementsMatch(t, failedByLossy, failed)
			require.NotEmpty(t, reopened)
		})
	}
}

// result is a line of the testing package's report on a case of the suite.
var result = regexp.MustCompile(`(?m)^\s+--- (PASS|FAIL): TestConformanceOfLossy/[^/\s]+/(\S+) `)

// conformInChild runs the suite in a process of its own and says of each case
// whether it passed.
func conformInChild(t *testing.T, s strategy.Strategy) map[string]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestConformanceOfLossy$/^"+s.Name+"$", "-test.skip", "//^"+tooLongForLossy+"$",
		"-test.v", "-test.timeout=2m", "-rapid.nofailfile", "-rapid.shrinktime=0s")
	cmd.Env = append(os.Environ(), childRole+"=conform")
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "nothing failed")
	results := map[string]bool{}
	for _, line := range result.FindAllStringSubmatch(string(out), -1) {
		results[line[2]] = line[1] == "PASS"
	}
	return results
}
