package certify

import "errors"

// ErrNoPowerCut: the machine lacks what power cuts need, which is Linux, root,
// FUSE, loop devices and the programs that make filesystems.
var ErrNoPowerCut = errors.New("power cuts cannot be made here")

// powerCutFilesystem is the one that is cut: the one on most disks.
const powerCutFilesystem = "ext4"

// powerCutRecoveries is how many recoveries are cut as well.
const powerCutRecoveries = 8

// PowerCutReport is what power cuts did.
type PowerCutReport struct {
	Filesystem   string `json:"filesystem"`
	Events       int    `json:"events"`        // writes and flushes that the disk saw
	CutEvents    int    `json:"cut_events"`    // of these, those after which the power was cut
	Cuts         int    `json:"cuts"`          // images mounted and judged
	RecoveryCuts int    `json:"recovery_cuts"` // beside these, of recoveries
}
