// Package bench measures mediabolt against the raw floor of the machine: what
// the same disk and the same cores do without a store. It is a module of its
// own, so that nothing it needs reaches users of the library.
//
// Here are the floors, the contents, the ratios and the gate; package cell
// measures one combination of operation, size, writers and index in a process of
// its own, package plan lists which, package driver goes through a list, and
// package report makes a page of what was found.
package bench

import (
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

// serial makes every content of a process another one, process those of two
// processes.
var (
	serial  atomic.Uint64
	process = rand.Uint64()
)

// Content makes distinct contents of one size cheaply: the same random bytes
// with another stamp in front. It is for one goroutine.
type Content struct {
	data    []byte
	encoded []byte
}

// stampSize is what is changed between two contents, in bytes: a multiple of 3,
// so that base64 of the rest stays as it is.
const stampSize = 24

// NewContent makes contents of size bytes, at least stampSize.
func NewContent(size int) *Content {
	c := &Content{data: make([]byte, size)}
	_, _ = rand.NewChaCha8([32]byte{7: byte(size)}).Read(c.data) // is documented to never fail
	return c
}

// Next is a content that no other call has returned, in any process. It is good
// until the next call.
func (c *Content) Next() []byte { return c.stamp(serial.Add(1), process) }

// Same is a content that is the same for one n, whoever asks.
func (c *Content) Same(n uint64) []byte { return c.stamp(n|1<<63, 0) }

func (c *Content) stamp(number, origin uint64) []byte {
	binary.LittleEndian.PutUint64(c.data, number)
	binary.LittleEndian.PutUint64(c.data[8:], origin)
	return c.data
}

// Base64 is the content that Next or Same returned last, in base64.
func (c *Content) Base64() string {
	if c.encoded == nil {
		c.encoded = base64.StdEncoding.AppendEncode(nil, c.data)
	}
	base64.StdEncoding.Encode(c.encoded, c.data[:stampSize])
	return string(c.encoded)
}
