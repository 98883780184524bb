//go:build !linux

package certify

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// missingForPowerCuts is ErrNoPowerCut with the reason.
func missingForPowerCuts() error {
	return fmt.Errorf("%w: this is %s, not Linux", ErrNoPowerCut, runtime.GOOS)
}

// powerCuts is missingForPowerCuts.
func powerCuts(context.Context, string, uint64, time.Duration, func(cut, of int)) (PowerCutReport, []Violation, error) {
	return PowerCutReport{}, nil, missingForPowerCuts()
}
