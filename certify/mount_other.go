//go:build !linux

package certify

// mountOf tells nothing: only Linux has mountinfo.
func mountOf(string) (Mount, error) { return Mount{Options: []string{}}, nil }
