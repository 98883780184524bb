// Package mount tells which filesystem a directory is on, and what of it weakens the
// promises of a store.
package mount

import (
	"fmt"
	"slices"
	"strings"
)

// Mount is the filesystem that a directory is on. Where the system does not
// tell, Filesystem is empty.
type Mount struct {
	Filesystem string   `json:"filesystem"`
	MountPoint string   `json:"mount_point"`
	Device     string   `json:"device"`
	Options    []string `json:"mount_options"` // of the mount and of the filesystem
	// Rotational and WriteCache are what the block device says of itself;
	// empty: it does not, or there is none.
	Rotational string `json:"rotational"`  // "0" or "1"
	WriteCache string `json:"write_cache"` // "write back" or "write through"
	// ReportingSyncfs says whether syncfs(2) tells of write errors, which it
	// does since Linux 5.8.
	ReportingSyncfs bool `json:"reporting_syncfs"`
	// FastCommit says that ext4 has its feature fast_commit, as far as that can be
	// told: by its counters in /proc, or else by the superblock, for root.
	FastCommit bool `json:"fast_commit"`

	number string // of the device, MAJOR:MINOR
}

// parseMountinfo is the mount that an absolute path without symbolic links is
// on, by the lines of /proc/self/mountinfo (proc_pid_mountinfo(5)): the longest
// mount point above it, of several equal ones the last, which hides the others.
func parseMountinfo(lines, path string) (Mount, error) {
	var best Mount
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			return Mount{}, fmt.Errorf("mountinfo line %q: too few fields", line)
		}
		point := unescapeMount(fields[4])
		if !above(point, path) || len(point) < len(best.MountPoint) {
			continue
		}
		best = Mount{
			Filesystem: fields[dash+1], MountPoint: point, Device: unescapeMount(fields[dash+2]), number: fields[2],
			Options: strings.Split(fields[5], ","),
		}
		for _, option := range strings.Split(fields[dash+3], ",") {
			if !slices.Contains(best.Options, option) {
				best.Options = append(best.Options, option)
			}
		}
	}
	if best.MountPoint == "" {
		return Mount{}, fmt.Errorf("mountinfo: no mount point above %s", path)
	}
	return best, nil
}

// above says whether path is dir or below it.
func above(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// unescapeMount undoes what the kernel does to spaces, tabs, newlines and
// backslashes.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
