package engine_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// MEDIABOLT_PROOF says how much of a proof that has no end is tried: "long" for
// make crash, "short" for CI, else seconds of it.
const (
	proofEnv = "MEDIABOLT_PROOF"
	// proofSeedEnv is the seed in place of a fresh one.
	proofSeedEnv = "MEDIABOLT_PROOF_SEED"
)

// freshSeed is a seed that no run had before, or the one that is asked for.
func freshSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) % 1e9
	if s := os.Getenv(proofSeedEnv); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("%s=%d", proofSeedEnv, seed)
	return seed
}

// howMany says in a word whether all cases were tried, so that nobody takes a
// sample for a proof.
func howMany(tried, of int) string {
	if tried == of {
		return "exhaustive"
	}
	return fmt.Sprintf("a sample of %d%%", 100*tried/of)
}
