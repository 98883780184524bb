package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// restoredFile is where a store that was restored keeps of which backup, as a
// restoredFrom in JSON. It is not part of its own backups.
const restoredFile = "restored"

// restoredVersion is the Version of every restoredFrom.
const restoredVersion = 1

// restoredFrom is the backup that a store was made of.
type restoredFrom struct {
	Version int       `json:"version"`
	Store   string    `json:"store"` // UUID of the store that the backup was made of
	At      time.Time `json:"at"`    // the moment that the backup shows
}

// readRestored answers nil for a store that was not restored.
func readRestored(ctl *os.Root) (*restoredFrom, error) {
	data, err := ctl.ReadFile(restoredFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r := new(restoredFrom)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%w: %s in %s: %w", storage.ErrCorrupted, restoredFile, ctl.Name(), err)
	}
	if r.Version != restoredVersion {
		return nil, fmt.Errorf("%w: %s in %s has version %d, this program knows %d", storage.ErrVersion, restoredFile, ctl.Name(), r.Version, restoredVersion)
	}
	return r, nil
}

// succession says whether a store may go on in the directory of a backup of another
// store: of the one that it was restored from, and only while the last backup there is
// that very one, so that the directory never shows two living stores in turn.
type succession struct {
	from  *restoredFrom // nil: the store was not restored
	asked bool
}

// of says whether the store was restored from the backup that a marker tells of.
func (n succession) of(m *backupMarker) bool {
	return n.from != nil && m.Whole && m.Store != "" && m.Store == n.from.Store && m.At.Equal(n.from.At)
}

// succeed takes over what another store has backed up, or is ErrConflict. The marker
// on disk tells of the other store until the first change of what it has.
func (d *backupDir) succeed(old *backupMarker) error {
	switch {
	case !d.next.of(old):
		return fmt.Errorf("%w: %s is a %s of another store, that of %s; name a new directory", storage.ErrConflict, d.path, old.Kind, old.Directory)
	case !d.next.asked:
		return fmt.Errorf("%w: %s is the backup that this store was restored from, of the store in %s, which may still use it: "+
			"take it over (--take-over, BackupOptions.TakeOver) if that one is gone, or name a new directory", storage.ErrConflict, d.path, old.Directory)
	}
	want := d.marker
	d.marker = *old
	d.marker.Store, d.marker.Directory = want.Store, want.Directory
	return nil
}
