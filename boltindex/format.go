package boltindex

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/storage"
)

// begin checks the format of an index that was just opened, and records the
// organization mode where it changed.
func (x *Index) begin(mode storage.OrganizationMode) error {
	err := x.view(func(tx *bolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		copy(x.storeID[:], meta.Get(keyStore))
		x.organization = storage.OrganizationMode(meta.Get(keyOrganization))
		return nil
	})
	if err != nil {
		return err
	}
	if mode == "" || mode == x.organization {
		return x.organization.Validate()
	}
	x.organization = mode
	return x.update(func(t *txn) error { return t.put(bucketMeta, keyOrganization, []byte(mode)) })
}

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
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
	for _, name := range allBuckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: no bucket %s", storage.ErrCorrupted, name)
		}
	}
	return nil
}
