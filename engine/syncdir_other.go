//go:build !windows

package engine

import (
	"errors"
	"os"
)

// syncDir makes the entries of a directory durable.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
