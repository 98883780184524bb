// Package sha256mb is SHA-256 (FIPS 180-4) of two messages at a time on one core,
// known as multi-buffer hashing. One message keeps the SHA instructions of a processor
// half idle, for each waits for the result of the one before it; two messages that have
// nothing to do with each other fill each other's gaps.
//
// Where the processor has no such instructions it is crypto/sha256, which also ends
// every message here.
package sha256mb

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"
)

// pairFrom is from how many bytes on a message looks for another. To meet costs about
// 1 µs, and 16 KiB alone take 10.
const pairFrom = 16 << 10

// Pairer hashes the messages of concurrent callers in pairs. The zero value is ready.
// It is safe for concurrent use.
type Pairer struct {
	mu      sync.Mutex
	waiting *message // nobody has taken it yet
}

// message is one that another caller may begin to hash.
type message struct {
	data  []byte
	state [8]uint32
	taken chan int // of capacity 1: how many bytes were hashed
}

var messages = sync.Pool{New: func() any { return &message{taken: make(chan int, 1)} }}

// Sum is the SHA-256 of data. A caller who finds no other lets those run who are
// ready to, once, and then hashes alone: nobody waits for company.
func (p *Pairer) Sum(data []byte) [sha256.Size]byte {
	if !available || len(data) < pairFrom {
		return sha256.Sum256(data)
	}
	p.mu.Lock()
	if other := p.waiting; other != nil {
		p.waiting = nil
		p.mu.Unlock()
		state, n := start, min(len(data), len(other.data))/sha256.BlockSize
		other.state = start
		block2(&state, &other.state, &data[0], &other.data[0], n)
		n *= sha256.BlockSize
		other.taken <- n
		return finish(&state, data, n)
	}
	own := messages.Get().(*message)
	own.data = data
	p.waiting = own
	p.mu.Unlock()

	runtime.Gosched()
	p.mu.Lock()
	alone := p.waiting == own
	if alone {
		p.waiting = nil
	}
	p.mu.Unlock()
	var sum [sha256.Size]byte
	if alone {
		sum = sha256.Sum256(data)
	} else {
		sum = finish(&own.state, data, <-own.taken)
	}
	own.data = nil
	messages.Put(own)
	return sum
}

// start is the initial hash value (FIPS 180-4, 5.3.3).
var start = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// finish is the hash of data, of whose first n bytes, whole blocks, state is the hash
// value.
func finish(state *[8]uint32, data []byte, n int) (sum [sha256.Size]byte) {
	h, err := resume(state, n)
	if err != nil {
		return sha256.Sum256(data)
	}
	_, _ = h.Write(data[n:]) // is documented to never fail
	h.Sum(sum[:0])
	return sum
}

// resume is a hash of crypto/sha256 that has read n bytes, whole blocks, in the form
// in which that package keeps one: a magic, the hash value, a block begun, the length.
func resume(state *[8]uint32, n int) (hash.Hash, error) {
	const magic = "sha\x03"
	var kept [len(magic) + sha256.Size + sha256.BlockSize + 8]byte
	at := copy(kept[:], magic)
	for i, word := range state {
		binary.BigEndian.PutUint32(kept[at+4*i:], word)
	}
	binary.BigEndian.PutUint64(kept[len(kept)-8:], uint64(n))
	h := sha256.New()
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(kept[:])
}
