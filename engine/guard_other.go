//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package engine

import (
	"errors"
	"os"
)

func openGuard(ctl *os.Root) (*os.File, error) { return ctl.Open(".") }

// tryGuard has no lock to take here.
func tryGuard(*os.File, bool) (bool, error) { return false, errors.ErrUnsupported }
