//go:build !unix

package certify

import (
	"errors"
	"os"
)

// canPause says whether processes can be stopped, made to go on, and asked to
// end.
const canPause = false

func pause(*os.Process) error     { return errors.ErrUnsupported }
func resume(*os.Process) error    { return errors.ErrUnsupported }
func terminate(*os.Process) error { return errors.ErrUnsupported }
