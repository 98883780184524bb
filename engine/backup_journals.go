package engine

import (
	"errors"
	"io/fs"

	"github.com/mediabolt/mediabolt/storage"
)

// carried are the files of the control directory that belong to what a store keeps,
// beside the index: a backup has them as they were at its moment. One of origins that
// is copied in the middle of an append makes itself anew.
var carried = [...]string{holdsFile, erasuresFile, erasingFile, originsName}

// beginCut begins the cut of a backup, and reads the carried files as they are at its
// moment: nobody changes them meanwhile.
func (b *backup) beginCut() (*cut, error) {
	s := b.s
	s.holds.mu.RLock()
	defer s.holds.mu.RUnlock()
	s.erasures.mu.Lock()
	defer s.erasures.mu.Unlock()
	b.journals = map[string][]byte{}
	for _, name := range carried {
		data, err := s.ctl.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		b.journals[name] = data
	}
	b.done.At = now()
	return s.cuts.beginCut(), nil
}

// placeJournals writes the carried files, durably with the next sync of the control
// directory. What is not there goes.
func (b *backup) placeJournals() error {
	for _, name := range carried {
		data, there := b.journals[name]
		if !there {
			if err := b.dir.ctl.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		if err := b.dir.ctl.WriteFile(name, data, b.s.cfg.FileMode); err != nil {
			return storage.Classify(err)
		}
		if err := b.dir.sync(name); err != nil {
			return err
		}
	}
	return nil
}
