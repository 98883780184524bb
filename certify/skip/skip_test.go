package skip_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
)

// A proof that cannot run is skipped, and fails where all are required.
func TestProof(t *testing.T) {
	for required, want := range map[string]ended{"": {skipped: "no reason"}, "1": {failed: "required here, cannot run: no reason"}} {
		t.Setenv("MEDIABOLT_REQUIRE_ALL", required)
		got := &ended{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			skip.Proof(got, "no reason")
		}()
		<-done
		want.TB = t
		require.Equal(t, want, *got)
	}
}

// ended is a test that notes how it is ended.
type ended struct {
	testing.TB
	skipped, failed string
}

func (e *ended) Skip(args ...any) { e.skipped = args[0].(string) }

func (e *ended) Fatal(args ...any) {
	e.failed = args[0].(string)
	runtime.Goexit()
}
