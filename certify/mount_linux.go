package certify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOf is the filesystem that dir is on.
func mountOf(dir string) (Mount, error) {
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
