package disk

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mediabolt/mediabolt/certify/workload"
)

// Case is one power cut of a recording.
type Case struct {
	Kind   string // the filesystem's name
	Seed   uint64 // of the workload, and of what is left to chance
	Origin int64  // of the recording: 0 unless that is one of a recovery
	Event  int    // the last one before the cut
	Choice Choice
}

// String is a name that ParseCase reads.
func (c Case) String() string {
	return fmt.Sprintf("%s/seed=%d/origin=%d/k=%d/choice=%s", c.Kind, c.Seed, c.Origin, c.Event, c.Choice)
}

// ParseCase reads a case's name.
func ParseCase(s string) (Case, error) {
	var c Case
	parts := strings.Split(s, "/")
	numbers := make([]uint64, 3)
	ok := len(parts) == 5
	for i, key := range [...]string{"seed=", "origin=", "k="} {
		if ok {
			value, found := strings.CutPrefix(parts[i+1], key)
			n, err := strconv.ParseUint(value, 10, 63)
			numbers[i], ok = n, found && err == nil
		}
	}
	if !ok {
		return c, fmt.Errorf("case %q: want one like ext4/seed=1/origin=0/k=100/choice=none", s)
	}
	choice, err := ParseChoice(strings.TrimPrefix(parts[4], "choice="))
	return Case{parts[0], numbers[0], int64(numbers[1]), int(numbers[2]), choice}, err
}

// Case is a case of this recording.
func (r *Recording) Case(event int, choice Choice) Case {
	return Case{r.Kind, r.Seed, r.Origin, event, choice}
}

// Judged is what came of a cut.
type Judged struct {
	*workload.Verdict
	// Chance is how many blocks were left to chance.
	Chance int
	// Recovery is what the disk has seen from the mount to the end of the
	// judgement: another recording to be cut, and to be dropped.
	Recovery *Recording
}

// Cut cuts the power after an event, mounts what is left, and judges the store
// there. A filesystem that does not mount is a violation as well. An error is
// one of the machine, or ctx's.
func (r *Recording) Cut(ctx context.Context, event int, choice Choice) (_ *Judged, err error) {
	var made Made
	if err := r.disks.call("Cut", Where{Disk: r.disk, Event: event, Choice: choice, Seed: r.Seed}, &made); err != nil {
		return nil, err
	}
	after := &Recording{Kind: r.Kind, Seed: r.Seed, Origin: r.Origin + int64(event),
		Recover: r.Recover, disks: r.disks, disk: made.Disk}
	judged := &Judged{Chance: made.Chance, Recovery: after}
	defer func() {
		if err != nil {
			err = errors.Join(err, after.Drop())
		}
	}()
	m, err := r.disks.mount(after.disk)
	if err != nil {
		judged.Verdict = &workload.Verdict{Violations: []workload.Violation{{Promise: "the filesystem mounts", Detail: err.Error()}}}
		after.Journal = r.Journal.Cut(after.Origin, nil)
		return judged, ctx.Err()
	}
	after.Journal = r.Journal.Cut(after.Origin, m.clock(after.Origin))
	if judged.Verdict, err = workload.Judge(ctx, m.target(r.Recover), after.Journal); err == nil {
		after.Journal.Settle(judged.Verdict)
		err = after.count()
	}
	return judged, errors.Join(err, m.unmount())
}
