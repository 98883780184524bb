//go:build !linux

package blobs

import (
	"errors"
	"io/fs"
	"os"
)

// fastBase cannot be had outside Linux.
type fastBase struct{}

func openFast(*os.Root) (*fastBase, error) { return nil, nil }

func (*fastBase) Close() error { return nil }

func (*fastBase) openFile(string, int, fs.FileMode) (*os.File, error) {
	return nil, errors.ErrUnsupported
}

func (*fastBase) appendTo(string, int, fs.FileMode, []byte) error { return errors.ErrUnsupported }

func (*fastBase) lstat(string) (int64, fs.FileMode, error) { return 0, 0, errors.ErrUnsupported }
func (*fastBase) remove(string) error                      { return errors.ErrUnsupported }
