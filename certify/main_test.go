package certify_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/mediabolt/mediabolt/certify"
)

// victimVariable makes a run of this test binary a victim.
const victimVariable = "MEDIABOLT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := certify.Victim(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func victim() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err) // there is no test without
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	return cmd
}
