package doctor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockers(t *testing.T) {
	const locks = `1: FLOCK  ADVISORY  WRITE 31942 00:1b:13274834 0 EOF
2: POSIX  ADVISORY  WRITE 31943 fe:00:13274834 0 EOF
3: FLOCK  ADVISORY  WRITE 17 fe:00:4834 0 EOF
4: FLOCK  ADVISORY  READ 18 fe:00:13274834 0 EOF
4: -> FLOCK  ADVISORY  WRITE 19 fe:00:13274834 0 EOF
5: FLOCK  ADVISORY  WRITE -1 fe:00:13274834 0 EOF
torn
`
	require.Equal(t, []int{31942, 18}, lockers(locks, 13274834))
	require.Empty(t, lockers("", 1))
}
