package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Filesystem is a kind of filesystem that disks are given.
type Filesystem struct {
	Name    string   // as mount(8) knows it
	Size    int64    // of the disk, in bytes: little more than the kind's least
	Mkfs    []string // the command that makes one; the disk's file is added
	Options string   // for the mount
	Package string   // Debian's, of the command
	// alone: no two disks of one origin can be mounted at once.
	alone bool
}

// Filesystems lists every kind. Nothing that they do in the background is left
// to be done after they are made, so that all events are the workload's.
func Filesystems() []Filesystem {
	return []Filesystem{
		{Name: "ext4", Size: 64 << 20, Package: "e2fsprogs",
			Mkfs: []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}},
		{Name: "xfs", Size: 300 << 20, Package: "xfsprogs", Options: "nouuid",
			Mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"}},
		{Name: "btrfs", Size: 128 << 20, Package: "btrfs-progs", alone: true,
			Mkfs: []string{"mkfs.btrfs", "-q", "-f", "-K", "-m", "single"}},
	}
}

// filesystem is the kind of a name.
func filesystem(name string) (Filesystem, error) {
	for _, f := range Filesystems() {
		if f.Name == name {
			return f, nil
		}
	}
	return Filesystem{}, fmt.Errorf("filesystem %q: want ext4, xfs or btrfs", name)
}

// Missing says what this machine lacks to make and mount one; nil if nothing.
func (f *Filesystem) Missing() error {
	if _, err := exec.LookPath(f.Mkfs[0]); err != nil {
		return fmt.Errorf("%w: install %s", err, f.Package)
	}
	return nil
}

// format makes an empty filesystem.
func (f *Filesystem) format(ctx context.Context, dir string) (_ image, err error) {
	name := filepath.Join(dir, f.Name+".img")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(name)) }()
	if err := file.Truncate(f.Size); err != nil {
		return nil, err
	}
	made := exec.CommandContext(ctx, f.Mkfs[0], append(f.Mkfs[1:len(f.Mkfs):len(f.Mkfs)], name)...)
	if out, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", f.Mkfs[0], err, out)
	}
	return readImage(file)
}

// readImage reads the blocks of a file that are not zeros.
func readImage(r io.ReaderAt) (image, error) {
	m := image{}
	zeros := make([]byte, blockSize)
	buf := make([]byte, 256*blockSize)
	for offset := int64(0); ; offset += int64(len(buf)) {
		n, err := r.ReadAt(buf, offset)
		for i := 0; i+blockSize <= n; i += blockSize {
			if block := buf[i : i+blockSize]; !bytes.Equal(block, zeros) {
				m[(offset+int64(i))/blockSize] = bytes.Clone(block)
			}
		}
		if err == io.EOF {
			return m, nil
		} else if err != nil {
			return nil, err
		}
	}
}
