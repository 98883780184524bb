package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/certify/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [DIR]",
		Short: "Look at what a store stands on, and whether it can be opened",
		Long: `Look at the store in DIR, or else in --store or the working directory, without opening
it: the filesystem and its mount options, room and inodes, owners and modes, the clock,
who has the store open, the index and its format, what a crash or repair has left. Says
what is wrong and what helps. Works on a store that is damaged or locked, and where
there is none yet; nothing is changed.

A problem makes the exit code 12; warnings and notes do not. Damage to media is not
looked for: 'mediabolt verify' reads everything, 'mediabolt certify' tries the disk.`,
		Example: `  mediabolt doctor
  mediabolt doctor /srv/media
  mediabolt doctor --json | jq -r '.findings[] | select(.severity == "problem") | .what'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := doctor.Examine(cmd.Context(), a.patient(args))
			if err != nil {
				return err
			}
			if err := a.printReport(report); err != nil {
				return err
			}
			return diagnosis(report)
		},
	}
}

// patient is the directory that is to be looked at.
func (a *app) patient(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	for _, dir := range []string{a.dir, os.Getenv(storeVariable)} {
		if dir != "" {
			return dir
		}
	}
	return "."
}

func (a *app) printReport(r *doctor.Report) error {
	if a.asJSON {
		return a.printJSON(r)
	}
	p := &page{w: a.stdout}
	p.line("%s", r.Dir)
	if d := &r.Disk; d.Filesystem != "" {
		p.item("disk", "%s on %s at %s", d.Filesystem, d.Device, d.MountPoint)
	}
	for _, f := range r.Findings {
		p.item(f.Topic, "%s%s", mark(f.Severity), f.What)
		if f.Advice != "" {
			p.line("  %-*s-> %s", itemName, "", f.Advice) // unbroken, for a command in it is to be copied
		}
	}
	return p.err
}

// mark stands before what is not fine.
func mark(s doctor.Severity) string {
	switch s {
	case doctor.Problem:
		return "PROBLEM: "
	case doctor.Warning:
		return "Warning: "
	}
	return ""
}

// diagnosis is the error of a report with problems.
func diagnosis(r *doctor.Report) error {
	if r.OK {
		return nil
	}
	problems := 0
	for _, f := range r.Findings {
		if f.Severity == doctor.Problem {
			problems++
		}
	}
	return hinted(&batchError{count(problems, "problem") + " found", outcome{code: "problem", exit: exitDamage}}, "")
}
