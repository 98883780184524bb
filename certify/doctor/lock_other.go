//go:build !linux && !darwin

package doctor

import (
	"errors"
	"os"
)

// isLocked cannot tell: the index is locked by other means here.
func isLocked(*os.File) (bool, error) { return false, errors.ErrUnsupported }
