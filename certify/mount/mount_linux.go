package mount

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Of is the filesystem that dir, which exists, is on.
func Of(dir string) (Mount, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Mount{}, err
	}
	lines, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, err
	}
	m, err := parseMountinfo(string(lines), path)
	if err != nil {
		return Mount{}, err
	}
	m.Rotational = queue(m.number, "rotational")
	m.WriteCache = queue(m.number, "write_cache")
	m.FastCommit = m.Filesystem == "ext4" && fastCommit(m.number)
	m.ReportingSyncfs, err = reportingSyncfs()
	return m, err
}

// queue is what a block device says of its queue, or nothing where there is
// none. A partition has that of its disk.
func queue(device, property string) string {
	dir, err := filepath.EvalSymlinks(filepath.Join("/sys/dev/block", device))
	if err != nil {
		return ""
	}
	for _, at := range []string{dir, filepath.Dir(dir)} {
		if value, err := os.ReadFile(filepath.Join(at, "queue", property)); err == nil {
			return strings.TrimSpace(string(value))
		}
	}
	return ""
}

// fastCommit says whether ext4 on a device is known to use fast commits: it counts
// some, or has the feature in its superblock (Documentation/filesystems/ext4).
func fastCommit(device string) bool {
	dir, err := filepath.EvalSymlinks(filepath.Join("/sys/dev/block", device))
	if err != nil {
		return false
	}
	name := filepath.Base(dir)
	if stats, err := os.ReadFile(filepath.Join("/proc/fs/ext4", name, "fc_info")); err == nil {
		var commits int64
		if _, err := fmt.Sscanf(string(stats), "fc stats:\n%d commits", &commits); err == nil && commits > 0 {
			return true
		}
	}
	f, err := os.Open(filepath.Join("/dev", name))
	if err != nil {
		return false
	}
	defer f.Close()
	super := make([]byte, superblockHead)
	if _, err := f.ReadAt(super, superblockAt); err != nil {
		return false
	}
	return hasFastCommit(super)
}

// Where ext4 has its superblock, and how much of it is looked at, in bytes.
const (
	superblockAt   = 1024
	superblockHead = 128
)

// hasFastCommit reads s_magic and s_feature_compat of a superblock.
func hasFastCommit(super []byte) bool {
	const magicAt, magic, compatAt, compatFastCommit = 0x38, 0xef53, 0x5c, 0x400
	return binary.LittleEndian.Uint16(super[magicAt:]) == magic && binary.LittleEndian.Uint32(super[compatAt:])&compatFastCommit != 0
}

func reportingSyncfs() (bool, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, err
	}
	var major, minor int
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(strings.ReplaceAll(release, "-", " "), "%d.%d", &major, &minor); err != nil {
		return false, fmt.Errorf("kernel release %q: %w", release, err)
	}
	return major > 5 || major == 5 && minor >= 8, nil
}
