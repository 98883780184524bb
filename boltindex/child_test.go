package boltindex_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/boltindex"
)

// childRole makes a run of this test binary one of the processes below.
const childRole = "MEDIABOLT_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "":
		os.Exit(m.Run())
	case "open":
		openChild(os.Getenv("MEDIABOLT_TEST_DIR"))
	case "damage":
		damageChild(os.Getenv("MEDIABOLT_TEST_DIR"), os.Stdin)
	}
}

// child is a process of this test binary.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors strings.Builder
}

func startChild(t testing.TB, role, dir string) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c := &child{cmd: exec.CommandContext(ctx, os.Args[0])}
	c.cmd.Env = append(os.Environ(), childRole+"="+role, "MEDIABOLT_TEST_DIR="+dir, "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	c.cmd.Stderr = &c.errors
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	return c
}

// line is the next line that the child prints, false when it has ended.
func (c *child) line() (string, bool) {
	s, err := c.out.ReadString('\n')
	return strings.TrimSuffix(s, "\n"), err == nil
}

// openChild opens the index in dir, making it if it is not there, says what
// came of it, and holds it until its input ends.
func openChild(dir string) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		_, err = boltindex.Open(context.Background(), boltindex.Config{Root: root, Create: true})
	}
	fmt.Printf("%v\n", err)
	_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent closes it
}
