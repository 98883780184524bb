package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/storage"
)

// refuseTarget says why a file must not be written.
func refuseTarget(target string, force bool) error {
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("%s exists and is no regular file", target)
	case !force:
		return hinted(fmt.Errorf("%s: %w", target, fileExists{}), "--force overwrites it, -o FILE writes another")
	}
	return nil
}

// fileExists is fs.ErrExist in plain words.
type fileExists struct{}

func (fileExists) Error() string { return "the file exists" }
func (fileExists) Unwrap() error { return fs.ErrExist }

// saveFile writes a file by way of a temporary one beside it. One that is there is
// overwritten with force only.
func saveFile(target string, force bool, write func(*os.File) error) (err error) {
	if err := refuseTarget(target, force); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(target), ".mediabolt-"+rand.Text()+".part")
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666) // before the umask
	if err != nil {
		return storage.Classify(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync() // otherwise a crash can leave an empty file under the final name
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return storage.Classify(err)
	}
	if err := refuseTarget(target, force); err != nil {
		return err
	}
	return storage.Classify(os.Rename(temp, target))
}
