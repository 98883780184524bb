package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal of so many columns: what is written to tty can be
// read from screen.
func openTerminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	t.Cleanup(func() { require.NoError(t, screen.Close()) })
	return screen, tty
}

// On a terminal a progress is one line, with a rate and the time that is left, written
// over and over and gone in the end; --progress 0 shows none.
func TestProgressOnATerminal(t *testing.T) {
	t.Chdir(t.TempDir())
	filled(40)(t)
	for columns, want := range map[uint16]string{
		100: `\rverifying: \d+ kB of 40 kB, \d+ kB/s, \ds left +\d+% \|█+ +\|`, 21: `\rverifying… +\d+% \|\|`,
	} {
		got := onTerminal(t, columns, "verify", "--rate", "20KB")
		require.Regexp(t, want, got)
		require.Equal(t, 1, strings.Count(got, "\n"), "the summary alone is a line: %q", got)
		lines := strings.Split(got, "\r")
		require.Regexp(t, `^no damage in 40 blobs`, lines[len(lines)-2])
		for _, line := range lines {
			if !strings.HasPrefix(line, "no damage") {
				require.Less(t, len([]rune(line)), int(columns))
			}
		}
	}
	require.Regexp(t, `^no damage in 40 blobs .*\r\n$`, onTerminal(t, 80, "verify", "--rate", "20KB", "--progress", "0"))
}

// onTerminal is what a command shows whose output and errors are a terminal.
func onTerminal(t *testing.T, columns uint16, args ...string) string {
	t.Helper()
	screen, tty := openTerminal(t, columns)
	cmd := exec.Command("mediabolt", append([]string{"--store", "store"}, args...)...)
	cmd.Stdout, cmd.Stderr = tty, tty
	shown := make(chan string)
	go func() {
		var all []byte
		buffer := make([]byte, 1<<10)
		for ended := regexp.MustCompile(`no damage in .*\n`); !ended.Match(all); {
			n, err := screen.Read(buffer)
			if all = append(all, buffer[:n]...); err != nil {
				break
			}
		}
		shown <- string(all)
	}()
	require.NoError(t, cmd.Run())
	require.NoError(t, tty.Close())
	return <-shown
}
