package boltindex

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// begin checks the format of an index that was just opened, takes in its log,
// and records the organization mode where it changed.
func (x *Index) begin(cfg *Config) error {
	err := x.viewBolt(func(tx *bolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		copy(x.storeID[:], tx.Bucket(bucketMeta.name()).Get(keyStore))
		return nil
	})
	if err != nil {
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

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta.name())
	if meta == nil {
		return fmt.Errorf("%w: a bbolt file that is no index of mediabolt", storage.ErrCorrupted)
	}
	format := meta.Get(keyFormat)
	if len(format) != 4 {
		return fmt.Errorf("%w: format %x", storage.ErrCorrupted, format)
	}
	if v := binary.BigEndian.Uint32(format); v != formatVersion {
		return fmt.Errorf("%w: index format %d, this program knows %d: use a newer mediabolt", storage.ErrVersion, v, formatVersion)
	}
	for _, name := range bucketNames {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: no bucket %s", storage.ErrCorrupted, name)
		}
	}
	return nil
}
