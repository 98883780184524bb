package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionRecord is what version prints in JSON.
type versionRecord struct {
	Version   string `json:"version"`
	GoVersion string `json:"go_version"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Show the version of this program",
		Long:              `Show the version of this program, of the Go that built it, and the system it is for.`,
		Example:           `  mediabolt version --json`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			r := versionRecord{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if a.asJSON {
				return a.printJSON(r)
			}
			_, err := fmt.Fprintf(a.stdout, "mediabolt %s (%s, %s/%s)\n", r.Version, r.GoVersion, r.OS, r.Arch)
			return err
		},
	}
}

// buildVersion is the version that was set at the build, or else the module's,
// which 'go install' knows.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if version != "dev" || !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return version
	}
	return info.Main.Version
}
