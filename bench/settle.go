package bench

import (
	"context"
	"time"
)

// A machine is quiet when its cores had nothing to do, and waited for no disk,
// for all but quietShare of quietTime; settleLimit is how long that is waited for.
const (
	quietShare  = 0.15
	quietTime   = 500 * time.Millisecond
	settleLimit = 30 * time.Second
)

// Settle has the kernel write what it still has, and waits until the machine is
// quiet, half a minute at most: then it tells how busy it still is, from 0 to 1.
// Where the kernel does not tell, that is 0.
func Settle(ctx context.Context) (waited time.Duration, busy float64, err error) {
	syncAll()
	begin := time.Now()
	for {
		used, total := coreTime()
		select {
		case <-time.After(quietTime):
		case <-ctx.Done():
			return time.Since(begin), busy, ctx.Err()
		}
		usedThen, totalThen := coreTime()
		busy = 0
		if totalThen > total {
			busy = float64(usedThen-used) / float64(totalThen-total)
		}
		if waited = time.Since(begin); busy <= quietShare || waited > settleLimit {
			return waited, busy, nil
		}
	}
}
