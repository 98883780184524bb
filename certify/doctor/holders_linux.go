package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// holders are the processes that have a file locked, by /proc/locks
// (proc_locks(5)). The device there is the filesystem's, which for some is not the
// one that stat tells, so a process counts that has the very file open.
func holders(f *os.File) []Holder {
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	var list []Holder
	for _, pid := range lockers(string(locks), inode) {
		if has, err := hasOpen(pid, info); has || err != nil {
			list = append(list, Holder{PID: pid, Command: commandOf(pid)})
		}
	}
	return list
}

// lockers are the processes that have a file of an inode locked whole.
func lockers(locks string, inode uint64) []int {
	var list []int
	for line := range strings.Lines(locks) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" { // one that waits has an arrow there
			continue
		}
		at := strings.Split(fields[5], ":")
		pid, err := strconv.Atoi(fields[4])
		if err == nil && pid > 0 && at[len(at)-1] == strconv.FormatUint(inode, 10) {
			list = append(list, pid)
		}
	}
	return list
}

// hasOpen says whether a process has a file open; an error that it may not be asked.
func hasOpen(pid int, info os.FileInfo) (bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if is, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && os.SameFile(is, info) {
			return true, nil
		}
	}
	return false, nil
}

// longCommand is how much of a command line is shown, in bytes.
const longCommand = 120

// commandOf is the command line of a process, or its name.
func commandOf(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	command := strings.Join(strings.FieldsFunc(string(line), func(r rune) bool { return r == 0 }), " ")
	if err != nil || command == "" {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // is gone by now, if it cannot be read
		command = strings.TrimSpace(string(name))
	}
	if len(command) > longCommand {
		command = command[:longCommand] + "…"
	}
	return strings.ToValidUTF8(command, "?")
}
