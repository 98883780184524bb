package strategy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
)

// TestReadme checks that the README's table has every strategy with what it
// loses, and that its example is the one that is compiled here.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	readme := string(data)
	for _, s := range strategy.All() {
		loses := s.Loses
		if loses == "" {
			loses = "nothing"
		}
		row := tableRow(readme, s.Name)
		require.NotEmpty(t, row, "no row for %s", s.Name)
		require.Contains(t, row, "| "+loses+" |")
	}
	_, after, found := strings.Cut(readme, "```go\n")
	require.True(t, found)
	code, _, _ := strings.Cut(after, "```")
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	require.Contains(t, string(example), code)
}

// tableRow is the line of a table that begins with a name.
func tableRow(text, name string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| `"+name+"` |") {
			return line
		}
	}
	return ""
}
