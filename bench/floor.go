package bench

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"crypto/sha256"
)

// sessions is how many session directories the stores of a benchmark go to.
const sessions = 100

// shards is how many directories files are created in before they are renamed,
// as many as mediabolt has.
const shards = 8

// DiskFloor is the rate at which writers create, write, sync and rename files,
// with no index: the most that durable plain files can do.
type DiskFloor struct{ dir string }

// NewDiskFloor makes the directories below dir.
func NewDiskFloor(dir string) (*DiskFloor, error) {
	for i := range shards {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("staging/%d", i)), 0o700); err != nil {
			return nil, err
		}
	}
	for i := range sessions {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("session-%d", i)), 0o700); err != nil {
			return nil, err
		}
	}
	return &DiskFloor{dir}, nil
}

// Writer is the state of one writer of contents of size bytes.
func (f *DiskFloor) Writer(writer, size int) func() error {
	c := NewContent(size)
	n := 0
	return func() error {
		n++
		staged := filepath.Join(f.dir, fmt.Sprintf("staging/%d/%d-%d", (writer+n)%shards, writer, n))
		file, err := os.OpenFile(staged, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err := file.Write(c.Next()); err != nil {
			return err
		}
		if err := datasync(file); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		id := serial.Load()
		return os.Rename(staged, filepath.Join(f.dir, fmt.Sprintf("session-%d/%d-%d-%d.bin", id%sessions, id, writer, n)))
	}
}

// HashFloor hashes contents of size bytes with SHA-256.
func HashFloor(size int) func() error {
	c := NewContent(size)
	var sum byte
	return func() error {
		digest := sha256.Sum256(c.Next())
		sum ^= digest[0]
		return nil
	}
}

// ReadFloor reads a file whole, and encodes it with the standard library's
// base64 if encode is set.
func ReadFloor(name string, encode bool) func() error {
	size := 0
	return func() error {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		size = len(data)
		if encode {
			size = len(base64.StdEncoding.EncodeToString(data))
		}
		if size == 0 {
			return fmt.Errorf("%s is empty", name)
		}
		return nil
	}
}
