package sha256mb

import "golang.org/x/sys/cpu"

// available says whether the processor has what block2 is made of: the SHA
// extensions are bit 29 of what extensions tells.
var available = extensions()>>29&1 == 1 && cpu.X86.HasSSSE3 && cpu.X86.HasSSE41

// extensions is EBX of CPUID for leaf 7, 0 where there is no such leaf.
func extensions() uint32

// block2 hashes so many blocks of 64 bytes of two messages, with their states.
//
//go:noescape
func block2(a, b *[8]uint32, fromA, fromB *byte, blocks int)
