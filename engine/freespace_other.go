//go:build !linux && !darwin && !freebsd && !windows

package engine

import (
	"errors"
	"os"
)

func readFreeSpace(*os.File) (freeSpace, error) { return freeSpace{}, errors.ErrUnsupported }
