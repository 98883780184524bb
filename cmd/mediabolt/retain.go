package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// somePolicies are offered by completion.
var somePolicies = []string{engine.PolicyForever, "retain-30days", "retain-12hours", "delete-after-10min", "36h"}

// policiesHelp is the form of policies, for the help of commands.
const policiesHelp = `A policy is 'retain', which keeps for ever; retain-30days, retain-12hours or
delete-after-10min with any number of weeks, days, hours, minutes or seconds; a
duration such as 36h; or a time such as 2027-01-31T00:00:00Z.`

func (a *app) retainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retain ID… POLICY",
		Short: "Change how long what was stored is kept",
		Long: `Give the references with these IDs another retention policy, whatever they had
before. A duration counts from now.

` + policiesHelp + `

What is over is ended by 'mediabolt expire', or by a program that has the store open
and was told to. Until then it can still be extended. Bytes that are shared stay as
long as the longest-lived reference to them.`,
		Example: `  mediabolt retain ID retain-30days
  mediabolt retain ID 2027-01-31T00:00:00Z
  mediabolt ls --session s1 --json | jq -r .id | xargs -I{} mediabolt retain {} retain`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("ID and POLICY are missing, or one of them")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return somePolicies, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, policy := args[:len(args)-1], args[len(args)-1]
			if err := checkPolicy(policy); err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				return a.each(ctx, len(ids), "IDs", func(i int) string { return ids[i] },
					func(i int) error { return a.retain(ctx, store, ids[i], policy) })
			})
		},
	}
}

// checkPolicy judges a policy before anything is opened.
func checkPolicy(policy string) error {
	_, err := engine.ParsePolicy(policy)
	return err
}

func (a *app) retain(ctx context.Context, store *engine.FileStore, id, policy string) error {
	e, err := store.Retain(ctx, &storage.StorageReference{ID: id}, policy)
	if err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(recordOf(&e))
	}
	_, err = fmt.Fprintf(a.stdout, "%s  kept %s\n", e.Reference.ID, until(e.ExpiresAt))
	return err
}

// until says until when something is kept.
func until(t time.Time) string {
	if t.IsZero() {
		return "for ever"
	}
	return "until " + moment(t)
}

// expiry is a time of expiry in a table.
func expiry(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return humanize.Time(t)
}
