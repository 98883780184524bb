//go:build unix

package doctor_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/doctor"
)

func TestPermissions(t *testing.T) {
	for name, c := range map[string]struct {
		mode     os.FileMode
		severity doctor.Severity
	}{
		".": {0o777, doctor.Problem}, ".mediabolt": {0o770, doctor.Note}, ".mediabolt/index.db": {0o644, doctor.Note},
		".mediabolt/log.0": {0o400, doctor.Problem}, ".mediabolt/staging": {0o707, doctor.Problem},
	} {
		dir := t.TempDir()
		mustFill(t, dir, 1)
		require.NoError(t, os.Chmod(dir+"/"+name, c.mode))
		r := mustExamine(t, dir)
		require.Contains(t, found(r, "permissions", c.severity), name+" (", "%+v", r.Findings)
	}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		mustFill(t, dir, 1)
		require.NoError(t, os.Chown(dir+"/.mediabolt/log.0", 12345, -1))
		r := mustExamine(t, dir)
		require.Contains(t, found(r, "permissions", doctor.Warning), "log.0 belongs to user 12345")
	}
}
