// Package skip ends tests that a machine cannot run.
package skip

import (
	"os"
	"testing"
)

// requireAll is the variable that, when it is set, allows no proof to be left out.
const requireAll = "MEDIABOLT_REQUIRE_ALL"

// Proof ends a test that this machine cannot run, and says why; where every proof is
// required the test fails instead.
func Proof(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(requireAll) != "" {
		t.Fatal("required here, cannot run: " + why)
	}
	t.Skip(why)
}
