package bench

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// syncAll is sync(2).
func syncAll() { syscall.Sync() }

// coreTime is how long all cores together were not idle since the start of the
// machine, waiting for a disk included, and how long they were there: in ticks, the first
// line of /proc/stat (proc(5)).
func coreTime() (used, total int64) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	fields := bytes.Fields(line)
	const idle, last = 4, 8 // of user, nice, system, idle, iowait, irq, softirq, steal
	for i := 1; i < len(fields) && i <= last; i++ {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, 0
		}
		total += n
		if i != idle {
			used += n
		}
	}
	return used, total
}
