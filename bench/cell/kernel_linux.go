package cell

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// sectorSize is the unit of the kernel's counters of a device, whatever it has.
const sectorSize = 512

// written is how much this process and the device below dir have written so
// far, in bytes. A device without counters has written nothing.
func written(dir string) (process, device int64, err error) {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, 0, err
	}
	process = field(data, "write_bytes:")
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0, 0, err
	}
	major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00
	if data, err = os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor)); err != nil {
		return process, 0, nil
	}
	if f := bytes.Fields(data); len(f) > 6 {
		sectors, err := strconv.ParseInt(string(f[6]), 10, 64)
		return process, sectors * sectorSize, err
	}
	return process, 0, nil
}

// field is the number after a label at the beginning of a line.
func field(data []byte, label string) int64 {
	for line := range bytes.Lines(data) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == label {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64)
			return n
		}
	}
	return 0
}

// resetRSS makes rssPeak forget what was before.
func resetRSS() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) } // else the peak is that of the preparation too

// rssPeak is the most memory that was resident, in bytes.
func rssPeak() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return field(data, "VmHWM:") << 10
}

// syncAll makes the kernel write what it still has, so that the device's
// counter has it.
func syncAll() { syscall.Sync() }

// room is what the files below dir take on disk, staging left out.
func room(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "staging" {
			return fs.SkipDir
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		sum += st.Blocks * sectorSize
		return nil
	})
	return sum, err
}

// dieWithParent has the kernel kill a child when its parent is gone.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
