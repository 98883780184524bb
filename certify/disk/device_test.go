package disk

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// filled is whole blocks of one byte.
func filled(b byte, blocks int) []byte { return bytes.Repeat([]byte{b}, blocks*blockSize) }

// firsts is the first byte of each of the first blocks after a cut.
func firsts(d *device, k int, choice Choice, seed uint64) [4]byte {
	left, _ := d.cut(k, choice, seed)
	var list [4]byte
	for i := range list {
		if block := left[int64(i)]; block != nil {
			list[i] = block[0]
		}
	}
	return list
}

// A cut leaves what a flush covers; whether of the rest, is the choice's.
func TestCutLeavesWhatIsDurable(t *testing.T) {
	d := newDevice(1<<20, image{0: filled(9, 1)})
	d.write(filled(1, 1), 0)()
	d.write(filled(2, 1), blockSize)()
	d.flush()()
	d.write(filled(3, 2), blockSize)()
	require.Equal(t, 4, d.events())

	require.Equal(t, [4]byte{9}, firsts(d, 0, ChoiceAll, 1))
	require.Equal(t, [4]byte{9}, firsts(d, 2, ChoiceNone, 1))
	require.Equal(t, [4]byte{1, 2}, firsts(d, 2, ChoiceAll, 1))
	require.Equal(t, [4]byte{1, 2}, firsts(d, 3, ChoiceNone, 1))
	require.Equal(t, [4]byte{1, 2}, firsts(d, 4, ChoiceNone, 1))
	require.Equal(t, [4]byte{1, 3, 3}, firsts(d, 4, ChoiceAll, 1))
	_, chance := d.cut(2, ChoiceNone, 1)
	require.Equal(t, 2, chance)
	_, chance = d.cut(3, ChoiceNone, 1)
	require.Zero(t, chance)
}

// A flush promises nothing of a write that was under way when it began, and
// nothing at all before it has ended.
func TestFlushCoversWhatHadEnded(t *testing.T) {
	d := newDevice(1<<20, image{})
	end := d.write(filled(1, 1), 0)
	d.write(filled(2, 1), blockSize)()
	endFlush := d.flush()
	end()
	d.write(filled(3, 1), 2*blockSize)()
	require.Equal(t, [4]byte{}, firsts(d, d.events(), ChoiceNone, 1))
	endFlush()
	require.Equal(t, [4]byte{0, 2}, firsts(d, d.events(), ChoiceNone, 1))
	d.flush()()
	require.Equal(t, [4]byte{1, 2, 3}, firsts(d, d.events(), ChoiceNone, 1))
}

// Chance reaches every outcome that a choice allows, and no other.
func TestChoices(t *testing.T) {
	d := newDevice(1<<20, image{})
	d.write(filled(1, 1), 0)()
	d.write(filled(2, 2), blockSize)()
	d.write(filled(3, 1), 3*blockSize)()
	want := map[Choice][][4]byte{
		ChoicePrefix: {{}, {1}, {1, 2, 2}, {1, 2, 2, 3}},
		ChoiceTorn:   {{1}, {1, 2}, {1, 2, 2}, {1, 2, 2, 3}},
	}
	for i := range 16 {
		var s [4]byte
		for b, value := range [...]byte{1, 2, 2, 3} {
			if i>>b&1 == 1 {
				s[b] = value
			}
		}
		want[ChoiceSubset] = append(want[ChoiceSubset], s)
	}
	for choice, outcomes := range want {
		seen := map[[4]byte]bool{}
		for seed := range uint64(2000) {
			seen[firsts(d, 3, choice, seed)] = true
			require.Equal(t, firsts(d, 3, choice, seed), firsts(d, 3, choice, seed))
		}
		for _, outcome := range outcomes {
			require.True(t, seen[outcome], "%s: %v", choice, outcome)
		}
		require.Len(t, seen, len(outcomes), choice)
	}
}

// What is read is what was written, whatever the pieces.
func TestDeviceReadsWhatWasWritten(t *testing.T) {
	d := newDevice(1<<20, image{})
	want := make([]byte, 5*blockSize)
	for _, w := range []struct{ offset, size int }{{0, 512}, {1024, 1024}, {4000, 200}, {blockSize, 2 * blockSize}, {3*blockSize - 1, 2}, {512, 9000}} {
		data := bytes.Repeat([]byte{byte(w.size)}, w.size)
		copy(want[w.offset:], data)
		d.write(data, int64(w.offset))()
		got := make([]byte, len(want))
		d.read(got, 0)
		require.True(t, bytes.Equal(want, got))
		d.read(got[:700], 4000)
		require.True(t, bytes.Equal(want[4000:4700], got[:700]))
	}
}

// A device that was saved is cut like the one that it was.
func TestSavedDevice(t *testing.T) {
	d := newDevice(1<<20, image{0: filled(9, 1)})
	d.write(filled(1, 2), 0)()
	d.flush()()
	d.write(filled(2, 2), blockSize)()
	var file bytes.Buffer
	require.NoError(t, d.save(&file, "ext4"))
	again, kind, err := load(&file)
	require.NoError(t, err)
	require.Equal(t, "ext4", kind)
	for k := range d.events() + 1 {
		for _, choice := range Choices() {
			want, chance := d.cut(k, choice, 7)
			got, gotChance := again.cut(k, choice, 7)
			require.Equal(t, want, got)
			require.Equal(t, chance, gotChance)
		}
	}
	_, _, err = load(bytes.NewReader([]byte("no recording")))
	require.Error(t, err)
}
