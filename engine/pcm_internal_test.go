package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// Whatever is said to be PCM has a layout that a WAV file can have, and what cannot
// be read is the caller's mistake.
func FuzzParsePCM(f *testing.F) {
	for _, seed := range []string{
		"", "audio/pcm", "audio/L16;rate=44100;channels=2", "audio/L8", "AUDIO/L24 ; bits=24", "audio/pcm;bits=0", "audio/pcm;rate=1e3",
		"audio/L16;codec=pcm;rate=24000", "audio/pcm;channels=64;bits=32;rate=16777215", "audio/pcm;endianness=big-endian", "audio/wav",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, mimeType string) {
		p, is, err := parsePCM(mimeType)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidMedia)
			require.False(t, is)
		}
		if !is {
			return
		}
		require.Positive(t, p.rate)
		require.Contains(t, []int{8, 16, 24, 32}, p.bits)
		require.Positive(t, p.channels)
		require.LessOrEqual(t, p.frame(), 1<<16-1)
		require.LessOrEqual(t, uint64(p.rate)*uint64(p.frame()), uint64(1<<32-1))
		require.Len(t, p.header(wavLimit), wavHeader)
	})
}
