package workload

import (
	"io"
	"math/rand/v2"
)

// Content names bytes that are made anew whenever they are needed: equal
// Contents are equal bytes, and different seeds are different bytes from eight
// on.
type Content struct {
	Seed uint64 `json:"seed"`
	Size int    `json:"size"` // bytes
}

// Bytes are the bytes.
func (c Content) Bytes() []byte {
	data := make([]byte, c.Size)
	_, _ = io.ReadFull(c.stream(), data) // is documented to never fail
	return data
}

// stream is the bytes, and goes on for ever.
func (c Content) stream() io.Reader {
	var key [32]byte
	r := rand.New(rand.NewPCG(c.Seed, 0))
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	return rand.NewChaCha8(key)
}
