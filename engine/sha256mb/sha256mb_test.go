package sha256mb

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/skip"
)

func random(seed byte, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// need skips a test of block2 where there is none.
func need(t testing.TB) {
	if !available {
		skip.Proof(t, "this processor has no SHA instructions, or is no amd64")
	}
}

// two hashes two messages together, as far as both have whole blocks.
func two(t testing.TB, a, b []byte) {
	t.Helper()
	states, n := [2][8]uint32{start, start}, min(len(a), len(b))/sha256.BlockSize
	if n > 0 {
		block2(&states[0], &states[1], &a[0], &b[0], n)
	}
	for i, data := range [][]byte{a, b} {
		_, err := resume(&states[i], n*sha256.BlockSize)
		require.NoError(t, err, "crypto/sha256 keeps a hash in another form")
		require.Equal(t, sha256.Sum256(data), finish(&states[i], data, n*sha256.BlockSize), "%d bytes, of %d and %d", len(data), len(a), len(b))
	}
}

// Two messages of any lengths, hashed together, have the sums of crypto/sha256.
func TestTwo(t *testing.T) {
	need(t)
	for _, a := range []int{0, 1, 63, 64, 65, 127, 128, 1000, 4096, 100_003} {
		for _, b := range []int{0, 1, 64, 192, 555, 70_000} {
			two(t, random(1, a), random(2, b+1)[1:]) // the second begins anywhere
		}
	}
}

func FuzzTwo(f *testing.F) {
	need(f)
	f.Add([]byte("abc"), random(1, 200))
	f.Add(random(2, 64), random(3, 64))
	f.Fuzz(func(t *testing.T, a, b []byte) { two(t, a, b) })
}

// Concurrent callers get the sum of what they gave, whoever they meet.
func TestPairer(t *testing.T) {
	var p Pairer
	var wg sync.WaitGroup
	for writer := range 16 {
		wg.Go(func() {
			sizes := rand.New(rand.NewPCG(uint64(writer), 1))
			for range 50 {
				data := random(byte(writer), sizes.IntN(4*pairFrom))
				if got, want := p.Sum(data), sha256.Sum256(data); got != want {
					t.Errorf("%d bytes: %x, not %x", len(data), got, want)
				}
			}
		})
	}
	wg.Wait()
}

// Who is met has its first blocks hashed by the other, and ends them itself.
func TestPairerMeets(t *testing.T) {
	need(t)
	for _, size := range []int{pairFrom, pairFrom + 100, 5 * pairFrom} {
		data := random(4, size)
		other := &message{data: random(5, 2*pairFrom), taken: make(chan int, 1)}
		p := Pairer{waiting: other}
		require.Equal(t, sha256.Sum256(data), p.Sum(data))
		require.Nil(t, p.waiting)
		n := <-other.taken
		require.Equal(t, min(size, 2*pairFrom)/sha256.BlockSize*sha256.BlockSize, n)
		require.Equal(t, sha256.Sum256(other.data), finish(&other.state, other.data, n))
	}
}

func BenchmarkSum(b *testing.B) {
	for _, callers := range []int{1, 64} {
		for _, size := range []int{16 << 10, 100 << 10} {
			for _, by := range []struct {
				name string
				sum  func([]byte) [sha256.Size]byte
			}{{"crypto", sha256.Sum256}, {"pairs", new(Pairer).Sum}} {
				b.Run(fmt.Sprintf("size=%dk/callers=%d/by=%s", size>>10, callers, by.name), func(b *testing.B) {
					data := random(1, size)
					b.SetBytes(int64(size))
					turns := make(chan struct{}, b.N)
					for range b.N {
						turns <- struct{}{}
					}
					close(turns)
					b.ResetTimer()
					var wg sync.WaitGroup
					for range callers {
						wg.Go(func() {
							for range turns {
								by.sum(data)
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}
