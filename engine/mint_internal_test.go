package engine

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// requireVersion7 requires the version and variant bits of RFC 9562.
func requireVersion7(t testing.TB, u storage.UUID) {
	t.Helper()
	require.Equal(t, uuid.Version(7), uuid.UUID(u).Version(), "version of %x", u)
	require.Equal(t, uuid.RFC4122, uuid.UUID(u).Variant(), "variant of %x", u)
}

func TestMintTellsTheTime(t *testing.T) {
	var m mint
	before := time.Now()
	u, err := m.next()
	require.NoError(t, err)
	sec, nsec := uuid.UUID(u).Time().UnixTime()
	require.WithinRange(t, time.Unix(sec, nsec), before.Add(-time.Millisecond), time.Now().Add(time.Millisecond))
}

func TestMintRisesAlsoWhenTheClockGoesBack(t *testing.T) {
	tests := []struct {
		name string
		last storage.UUID
	}{
		{"a first one", storage.UUID{}},
		{"last an hour ahead", at(time.Now().Add(time.Hour), 0x123)},
		{"last at the end of its millisecond", at(time.Now().Add(time.Hour), 0xfff)},
		{"last a century ahead", at(time.Now().AddDate(100, 0, 0), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mint{last: tt.last}
			last := tt.last
			for range 10000 { // more than the fractions of one millisecond
				u, err := m.next()
				require.NoError(t, err)
				requireVersion7(t, u)
				require.Positive(t, bytes.Compare(u[:], last[:]), "%x after %x", u, last)
				require.Greater(t, u.String(), last.String(), "the short form sorts alike")
				last = u
			}
		})
	}
}

// at is a version 7 UUID of a moment, and of a fraction of its millisecond in
// 12 bits.
func at(moment time.Time, fraction uint16) storage.UUID {
	var u storage.UUID
	ms := moment.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6], u[7] = 0x70|byte(fraction>>8), byte(fraction)
	for i := 8; i < len(u); i++ {
		u[i] = 0xbf
	}
	return u
}

func TestMintNeverRepeatsItself(t *testing.T) {
	const goroutines, each = 16, 2000
	var m mint
	minted := make([][]storage.UUID, goroutines)
	var wg sync.WaitGroup
	for i := range minted {
		wg.Go(func() {
			for range each {
				u, err := m.next()
				if err != nil {
					t.Errorf("mint: %v", err)
					return
				}
				minted[i] = append(minted[i], u)
			}
		})
	}
	wg.Wait()
	seen := map[storage.UUID]bool{}
	for _, list := range minted {
		require.True(t, slices.IsSortedFunc(list, func(a, b storage.UUID) int { return bytes.Compare(a[:], b[:]) }),
			"what one goroutine gets rises")
		for _, u := range list {
			requireVersion7(t, u)
			require.False(t, seen[u], "%x twice", u)
			seen[u] = true
		}
	}
	require.Len(t, seen, goroutines*each)
}
