//go:build !linux

package blobs

import (
	"errors"
	"io/fs"
	"os"
)

// fastFolder cannot be had outside Linux.
type fastFolder struct{}

func (*fastBase) openFolder(string) (*fastFolder, error) { return nil, errors.ErrUnsupported }

func (*fastFolder) Close()                                       {}
func (*fastFolder) create(string, fs.FileMode) (*os.File, error) { return nil, errors.ErrUnsupported }
func (*fastFolder) link(string, *fastFolder, string) error       { return errors.ErrUnsupported }
func (*fastFolder) remove(string) error                          { return errors.ErrUnsupported }
