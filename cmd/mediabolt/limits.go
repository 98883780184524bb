package main

import (
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// limitFlags are the flags that bound what is stored.
type limitFlags struct {
	total, user, session, free string

	quota   engine.Quota
	minFree int64
}

func (l *limitFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&l.total, "quota", "", "refuse what would make all files take more than this `SIZE`: 500MB, 20GiB")
	flags.StringVar(&l.user, "user-quota", "", "refuse what would give a user more than this `SIZE`, shared bytes included")
	flags.StringVar(&l.session, "session-quota", "", "refuse what would give a session more than this `SIZE`, shared bytes included")
	flags.StringVar(&l.free, "min-free", "", "refuse what would leave less than this `SIZE` free on the filesystem")
}

// check reads the flags.
func (l *limitFlags) check() (err error) {
	for _, f := range [...]struct {
		flag, text string
		into       *int64
	}{
		{"quota", l.total, &l.quota.TotalBytes}, {"user-quota", l.user, &l.quota.UserBytes},
		{"session-quota", l.session, &l.quota.SessionBytes}, {"min-free", l.free, &l.minFree},
	} {
		if f.text == "" {
			continue
		}
		if *f.into, err = parseSize(f.flag, f.text); err != nil {
			return err
		}
		if *f.into == 0 && f.flag != "min-free" {
			return usagef("--%s %s: want more than nothing; leave it out for no bound", f.flag, f.text)
		}
	}
	return nil
}
