//go:build !amd64

package sha256mb

const available = false

func block2(*[8]uint32, *[8]uint32, *byte, *byte, int) { panic("not available") }
