package certify

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/certify/mount"
)

// Honesty is what the speed of a sync says about whether it reaches the disk.
type Honesty string

const (
	HonestyPlausible Honesty = "plausible" // as fast as there are disks
	HonestyTooFast   Honesty = "too_fast"  // faster than any disk
	HonestyUnclear   Honesty = "unclear"   // faster than a disk that turns, as this one says it does
	HonestyNone      Honesty = "none"      // a filesystem in memory, whose syncs do nothing
)

// Below leavesMachine no flush can have left the machine's memory: an NVMe
// command alone takes 6 to 10 µs there and back, and drives whose cache is
// protected against power loss, the fastest there are, answer a flush in 20 to
// 50 µs, consumer drives in 0.1 to 5 ms. Persistent memory with DAX is the
// exception: it is durable without a command.
//
// A platter of 7200 rpm turns 120 times a second, once in 8.3 ms; a sync waits
// half a turn on average. Below rotation a disk that turns has not been waited
// for, but a cache before it.
const (
	leavesMachine = 10 * time.Microsecond
	rotation      = 2 * time.Millisecond
)

// Disk is what was measured of a directory's disk, and what it means.
type Disk struct {
	mount.Mount
	HardLinks    bool    `json:"hard_links"`
	DurableWrite Latency `json:"durable_write"`  // create, write 100 KiB, fdatasync, rename
	Overwrite    Latency `json:"sync_overwrite"` // fdatasync after 4 KiB in place of others
	Append       Latency `json:"sync_append"`    // fsync after 4 KiB at the end
	Honesty      Honesty `json:"sync_honesty"`
	Why          string  `json:"sync_honesty_why"`
	// Concerns are what about the filesystem weakens the promises, in words.
	Concerns []string `json:"concerns"`
}

// MeasureDisk measures in a new directory dir, for about as long as slice.
func MeasureDisk(ctx context.Context, dir string, slice time.Duration) (Disk, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return Disk{}, err
	}
	m, err := mount.Of(dir)
	if err != nil {
		return Disk{}, fmt.Errorf("find the filesystem of %s: %w", dir, err)
	}
	d := Disk{Mount: m}
	if d.HardLinks, err = hardLinks(dir); err != nil {
		return Disk{}, fmt.Errorf("try hard links: %w", err)
	}
	for _, m := range []struct {
		result  *Latency
		measure func(context.Context, string, time.Duration) (Latency, error)
	}{{&d.DurableWrite, durableWrites}, {&d.Overwrite, overwrites}, {&d.Append, appends}} {
		if *m.result, err = m.measure(ctx, dir, slice/3); err != nil {
			return Disk{}, fmt.Errorf("measure the disk: %w", err)
		}
	}
	d.Honesty, d.Why = d.honesty()
	d.Concerns = []string{}
	for _, c := range d.Mount.Concerns() {
		d.Concerns = append(d.Concerns, c.Text)
	}
	if !d.HardLinks {
		d.Concerns = append(d.Concerns, mount.NoHardLinks.Text)
	}
	return d, nil
}

// honesty judges the syncs by their speed. The faster of the two kinds of sync
// has to be slow enough.
func (d *Disk) honesty() (Honesty, string) {
	fastest := time.Duration(min(d.Overwrite.P50, d.Append.P50) * float64(time.Microsecond))
	switch {
	case d.InMemory():
		return HonestyNone, d.Filesystem + " is memory: a sync does nothing, and nothing survives a power cut"
	case fastest < leavesMachine:
		return HonestyTooFast, fmt.Sprintf("half of the syncs take no more than %s, and in %s nothing leaves the machine: "+
			"unless this is persistent memory, syncs are ignored and a power cut loses data", show(fastest), leavesMachine)
	case d.Rotational == "1" && fastest < rotation:
		return HonestyUnclear, fmt.Sprintf("the disk says that it turns, and half of the syncs take no more than %s where one of "+
			"7200 rpm needs about 4 ms. That is well for a virtual disk on something faster, or a controller with a battery; "+
			"otherwise a cache answers, and a power cut loses data", show(fastest))
	case d.WriteCache == "write through":
		return HonestyPlausible, "the disk says that it has no volatile cache, so the kernel sends it no flushes; " +
			"where that is not so, no measurement here can tell"
	}
	return HonestyPlausible, "as fast as real disks are; only a power cut can prove more"
}

// show is a duration in three digits or so.
func show(d time.Duration) time.Duration {
	if d < 100*time.Microsecond {
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}
