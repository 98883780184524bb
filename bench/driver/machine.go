package driver

import (
	"fmt"
	"runtime"
)

// Machine describes where results come from, without names or paths.
type Machine struct {
	CPU        string `json:"cpu,omitempty"`
	Cores      int    `json:"cores"`
	MemoryMiB  int64  `json:"memory_mib,omitempty"`
	Filesystem string `json:"filesystem,omitempty"`
	Kernel     string `json:"kernel,omitempty"`
	OS         string `json:"os"`
	Go         string `json:"go"`
}

// Describe is the machine, with the filesystem that dir is on.
func Describe(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	describe(&m, dir)
	return m
}

// String is a line for people.
func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB of memory, %s, kernel %s, %s, %s",
		m.Cores, m.CPU, float64(m.MemoryMiB)/1024, m.Filesystem, m.Kernel, m.OS, m.Go)
}
