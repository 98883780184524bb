package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
)

// Recording is what a disk has seen while a store on it was used, and the
// journal of that use.
type Recording struct {
	// Kind is the filesystem's name.
	Kind string
	// Seed is that of the workload.
	Seed uint64
	// Events is how many writes and flushes there were.
	Events int
	// Journal has the number of events at each moment, after Origin.
	Journal *workload.Journal
	Origin  int64
	// Recover changes the configuration of the store after a cut. Nil leaves
	// it as it is.
	Recover func(engine.FileStoreConfig) engine.FileStoreConfig

	disks *Disks
	disk  int
}

// storeDir is the directory of the store on a disk.
const storeDir = "store"

func (m *mounted) target(configure func(engine.FileStoreConfig) engine.FileStoreConfig) workload.Target {
	return workload.Target{Dir: filepath.Join(m.dir, storeDir), Configure: configure}
}

// Record runs the workload of a seed on a new disk with a filesystem of a kind.
// configure changes the store's configuration; nil leaves it as it is. An
// operation that failed is an error: nothing was cut yet.
func Record(ctx context.Context, disks *Disks, kind string, seed uint64,
	configure func(engine.FileStoreConfig) engine.FileStoreConfig,
) (_ *Recording, err error) {
	var made Made
	if err := disks.call("Make", kind, &made); err != nil {
		return nil, err
	}
	r := &Recording{Kind: kind, Seed: seed, disks: disks, disk: made.Disk}
	m, err := disks.mount(r.disk)
	if err != nil {
		return nil, errors.Join(err, r.Drop())
	}
	r.Journal = workload.NewJournal(m.clock(0), nil)
	err = m.mark(ctx)
	if err == nil {
		err = workload.Run(ctx, m.target(configure), seed, r.Journal)
	}
	if err == nil {
		err = r.count()
	}
	if err = errors.Join(err, m.unmount()); err == nil {
		for _, op := range r.Journal.Failed() {
			err = errors.Join(err, fmt.Errorf("operation %d, %s: %s", op.Number, op.Kind, op.Error))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("record the workload on %s: %w", kind, err), r.Drop())
	}
	return r, nil
}

// count takes the events so far for those of the recording: what comes later
// is the unmount's.
func (r *Recording) count() error { return r.disks.call("Events", r.disk, &r.Events) }

// Drop forgets the recording.
func (r *Recording) Drop() error { return r.disks.drop(r.disk) }

// journalSuffix is added to the name of a saved recording for that of its
// journal.
const journalSuffix = ".journal"

// Save writes the recording to two files, of which name is one.
func (r *Recording) Save(name string) (err error) {
	if err := r.disks.call("Save", Where{Disk: r.disk, Path: name}, new(bool)); err != nil {
		return err
	}
	f, err := os.Create(name + journalSuffix)
	if err != nil {
		return err
	}
	return errors.Join(r.Journal.Write(f), f.Close())
}

// Load reads the recording that a case is one of, as it was saved.
func Load(disks *Disks, c Case, name string) (_ *Recording, err error) {
	var made Made
	if err := disks.call("Load", name, &made); err != nil {
		return nil, err
	}
	r := &Recording{Kind: made.Kind, Seed: c.Seed, Origin: c.Origin, Events: made.Events, Journal: workload.NewJournal(nil, nil),
		disks: disks, disk: made.Disk}
	f, err := os.Open(name + journalSuffix)
	if err != nil {
		return nil, errors.Join(err, r.Drop())
	}
	if err := errors.Join(r.Journal.Read(f), f.Close()); err != nil {
		return nil, errors.Join(err, r.Drop())
	}
	return r, nil
}
