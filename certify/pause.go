package certify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// A second opener waits for openerWait and must be told of the lock within
// openerSlack more, on a busy machine.
const (
	openerWait  = 150 * time.Millisecond
	openerSlack = 5 * time.Second
	maxPauses   = 3
)

// pauses stops a victim a few times. While it is stopped a second opener must
// be refused in time; afterwards the victim must go on.
func (k *Killer) pauses(ctx context.Context, o *orders, p *process) (broken []Violation, err error) {
	for range 1 + k.r.IntN(maxPauses) {
		k.report.Pauses++
		if err := p.signal(pause); err != nil {
			return broken, err
		}
		if v := refuseSecond(ctx, o); v != nil && !p.isGone() {
			broken = append(broken, *v)
		}
		said := p.said.Load()
		if err := p.signal(resume); err != nil {
			return broken, err
		}
		if !p.goesOn(ctx, said) {
			broken = append(broken, Violation{Kind: ViolationStall,
				Detail: "a process that was paused does not go on within " + patience.String()})
		}
		k.idle(p, k.Work)
	}
	return broken, nil
}

// refuseSecond opens the store for a second time, which must end in ErrLocked
// that names it.
func refuseSecond(ctx context.Context, o *orders) *Violation {
	config := o.config()
	config.LockTimeout = openerWait
	begun := time.Now()
	store, err := engine.Open(ctx, config)
	took := time.Since(begun)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		return &Violation{Kind: ViolationLock, Detail: fmt.Sprintf(
			"a second process opened the store while the first was paused (close: %v)", store.Close())}
	case !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), o.Dir):
		return &Violation{Kind: ViolationLock, Detail: "a second opener is told: " + err.Error()}
	case took < openerWait || took > openerWait+openerSlack:
		return &Violation{Kind: ViolationLock, Detail: fmt.Sprintf("a second opener with a timeout of %s was refused after %s", openerWait, took)}
	}
	return nil
}

// isGone says whether the victim has ended; then its last words count, and not
// what was seen meanwhile.
func (p *process) isGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// goesOn waits until the victim has said more, or is gone.
func (p *process) goesOn(ctx context.Context, said int64) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); p.said.Load() == said; {
		select {
		case <-p.gone:
			return true
		case <-ctx.Done():
			return true
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
