//go:build !(darwin || freebsd || linux)

package boltindex

import (
	"errors"
	"os"
)

// mapFile does without a map: pages are read.
func mapFile(*os.File, int64) ([]byte, error) { return nil, errors.ErrUnsupported }

func release([]byte) {}

func unmap([]byte) error { return nil }
