package certify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/certify/disk"
)

// missingForPowerCuts is ErrNoPowerCut with the reason, or nil.
func missingForPowerCuts() error {
	if err := disk.Missing(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoPowerCut, err)
	}
	for _, f := range disk.Filesystems() {
		if f.Name != powerCutFilesystem {
			continue
		}
		if err := f.Missing(); err != nil {
			return fmt.Errorf("%w: %w", ErrNoPowerCut, err)
		}
	}
	return nil
}

// powerCuts cuts the power of a disk of our own, again and again for about as
// long as limit, in a new directory dir.
func powerCuts(ctx context.Context, dir string, seed uint64, limit time.Duration, progress func(cut, of int)) (_ PowerCutReport, _ []Violation, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return PowerCutReport{}, nil, err
	}
	disks, err := disk.Start(dir)
	if err != nil {
		return PowerCutReport{}, nil, fmt.Errorf("%w: %w", ErrNoPowerCut, err)
	}
	defer func() { err = errors.Join(err, disks.Close()) }()
	result, err := disk.Series(ctx, disks, disk.Plan{
		Kinds: []string{powerCutFilesystem}, Seeds: []uint64{seed}, Limit: limit,
		Recoveries: powerCutRecoveries, First: true, LogDir: dir,
		Progress: func(p disk.Progress) { progress(p.Done, p.Total) },
	})
	report := PowerCutReport{
		Filesystem: powerCutFilesystem, Events: result.Events, CutEvents: result.CutEvents,
		Cuts: result.Cuts, RecoveryCuts: result.RecoveryCuts,
	}
	var broken []Violation
	for i := range result.Failures {
		f := &result.Failures[i]
		for _, v := range f.Violations {
			broken = append(broken, Violation{Part: "power_cut", Kind: ViolationPowerCut,
				Detail: fmt.Sprintf("%s (recorded in %s): %s", f.Case, f.Log, v)})
		}
	}
	return report, broken, err
}
