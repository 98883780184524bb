package boltindex

import (
	"encoding/binary"
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// begin checks the format of an index that was just opened, takes in its log,
// and records the organization mode where it changed.
func (x *Index) begin(cfg *Config) (err error) {
	if err := x.openPages(cfg.NoSync); err != nil {
		return err
	}
	if x.changes, err = x.openLog(cfg.NoSync); err != nil {
		return err
	}
	if err := x.replay(); err != nil {
		return err
	}
	err = x.view(func(r *rows) error {
		x.organization = storage.OrganizationMode(r.get(bucketMeta, keyOrganization))
		return nil
	})
	if err != nil {
		return err
	}
	mode := cfg.Organization
	if mode == "" || mode == x.organization {
		return x.organization.Validate()
	}
	x.organization = mode
	return x.change(false, func(t *txn) error { return t.put(bucketMeta, keyOrganization, []byte(mode)) })
}

func checkFormat(s *state) error {
	format, err := s.get(bucketMeta, keyFormat)
	if err != nil {
		return err
	}
	if len(format) != 4 {
		return fmt.Errorf("%w: format %x", storage.ErrCorrupted, format)
	}
	if v := binary.BigEndian.Uint32(format); v != formatVersion {
		return fmt.Errorf("%w: index format %d, this program knows %d: use a newer mediabolt", storage.ErrVersion, v, formatVersion)
	}
	return nil
}
