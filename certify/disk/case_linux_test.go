package disk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseCase(t *testing.T) {
	for _, choice := range Choices() {
		want := Case{"btrfs", 18, 1234, 56, choice}
		got, err := ParseCase(want.String())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, s := range []string{"", "ext4", "ext4/seed=1/origin=0/k=1/choice=some", "ext4/seed=x/origin=0/k=1/choice=all", "ext4/origin=0/seed=1/k=1/choice=all"} {
		_, err := ParseCase(s)
		require.Error(t, err, s)
	}
}
