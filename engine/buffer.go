package engine

import (
	"math/bits"
	"sync"
)

// Buffers are reused between calls, in classes of powers of two, so that a
// small content does not occupy a large buffer.
const (
	minBufferBits = 16 // 64 KiB
	maxBufferBits = 23 // 8 MiB; a larger buffer is not kept
)

var bufferClasses [maxBufferBits - minBufferBits + 1]sync.Pool

// bufferClass is the index of the smallest class with room for n bytes.
func bufferClass(n int) int {
	return max(0, bits.Len(uint(max(n, 1)-1))-minBufferBits)
}

// newBuffer returns a buffer of at least n bytes, of any content.
func newBuffer(n int) *[]byte {
	class := bufferClass(n)
	if class >= len(bufferClasses) {
		b := make([]byte, n)
		return &b
	}
	if b, ok := bufferClasses[class].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 1<<(minBufferBits+class))
	return &b
}

// freeBuffer takes back a buffer of newBuffer's, or nil.
func freeBuffer(b *[]byte) {
	if b == nil {
		return
	}
	if class := bufferClass(len(*b)); class < len(bufferClasses) && len(*b) == 1<<(minBufferBits+class) {
		bufferClasses[class].Put(b)
	}
}
