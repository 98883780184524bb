package report_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/driver"
	"github.com/mediabolt/mediabolt/bench/report"
)

var update = flag.Bool("update", false, "write the golden page anew")

func TestReport(t *testing.T) {
	lines, _, err := driver.Read("../testdata/results.json")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, report.Write(lines, dir))
	for _, name := range []string{"index.md", "results.txt"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		golden := filepath.Join("../testdata/report", name)
		if *update {
			require.NoError(t, os.WriteFile(golden, got, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
	svg, err := os.ReadFile(filepath.Join(dir, "writers.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "boltindex")
	require.NoFileExists(t, filepath.Join(dir, "latency.svg"), "there are no points for it")
}

func TestReportOfNothing(t *testing.T) {
	require.Error(t, report.Write(nil, t.TempDir()))
}
