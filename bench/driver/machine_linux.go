package driver

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// filesystems names the magic numbers of statfs(2), from linux/magic.h.
var filesystems = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x2fc12fc1: "zfs",
	0x794c7630: "overlayfs", 0xf2f52010: "f2fs", 0x6969: "nfs",
}

func describe(m *Machine, dir string) {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) == nil {
		m.Filesystem = filesystems[int64(fs.Type)]
		if m.Filesystem == "" {
			m.Filesystem = fmt.Sprintf("filesystem %#x", fs.Type)
		}
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.MemoryMiB = int64(info.Totalram) * int64(info.Unit) >> 20
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(release)), "-")
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(cpus)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			return
		}
	}
}
