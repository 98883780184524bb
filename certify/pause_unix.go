//go:build unix

package certify

import (
	"os"
	"syscall"
)

// canPause says whether processes can be stopped, made to go on, and asked to
// end.
const canPause = true

func pause(p *os.Process) error     { return p.Signal(syscall.SIGSTOP) }
func resume(p *os.Process) error    { return p.Signal(syscall.SIGCONT) }
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
