package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// ls is one run of the command ls, or of find, which is ls for labels.
type ls struct {
	listing
	labels                                     []string
	digest                                     string
	createdFrom, createdTo, addedFrom, addedTo string
	expiresAfter, expiresBefore                string
	minSize, maxSize                           string
}

func (a *app) lsCommand() *cobra.Command {
	l := &ls{listing: listing{app: a}}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is stored, in order of storing or of expiry",
		Long: `List what is stored, oldest first, as a table, as JSON Lines that hold everything
'mediabolt stat' shows, or as CSV. Several filters narrow together; long IDs and
names are cut in the table and whole in JSON and CSV.

A list that --limit ends says on standard error how to go on: with --cursor, and
otherwise the same flags. In JSON every line has the cursor behind it. What is
stored or deleted meanwhile shifts no page.

The order is that of storing, or with --sort expiry that in which things expire,
without what never does. --added-from and --added-to are times of storing,
--created-from and --created-to those that the application gave, or else the same.
From and after are included, to and before are not. A time is 2026-03-01,
2026-03-01T12:30, 2026-03-01T12:30:00Z, or how long ago, such as 36h: of
--expires-after and --expires-before how long from now on.`,
		Example: `  mediabolt ls
  mediabolt ls --session s1 --sort newest --limit 20
  mediabolt ls --mime image/ --min-size 1MB --added-from 24h
  mediabolt ls --sort expiry --expires-before 24h
  mediabolt ls --user u1 --json | jq -r .id
  mediabolt ls --format csv > all.csv`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return l.run(cmd.Context()) },
	}
	l.addFilters(cmd)
	l.addFlags(cmd)
	return cmd
}

func (a *app) findCommand() *cobra.Command {
	l := &ls{listing: listing{app: a}}
	cmd := &cobra.Command{
		Use:   "find --label KEY=VALUE…",
		Short: "Find what has labels",
		Long: `List what has all the labels given, each with just that value. Every flag of
'mediabolt ls' narrows further. Labels are in no index: without a session,
conversation, run, user, digest or time of storing, all references are looked at.`,
		Example: `  mediabolt find --label file_name=sunrise.png
  mediabolt find --label project=sunrise --label model=painter-2 --sort newest`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(l.labels) == 0 {
				return usagef("--label KEY=VALUE is missing; 'mediabolt ls' lists without")
			}
			return l.run(cmd.Context())
		},
	}
	l.addFilters(cmd)
	l.addFlags(cmd)
	return cmd
}

// addFilters adds the flags that narrow a list.
func (l *ls) addFilters(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&l.query.SessionID, "session", "", "only of the session with this `ID`")
	flags.StringVar(&l.query.ConversationID, "conversation", "", "only of the conversation with this `ID`")
	flags.StringVar(&l.query.RunID, "run", "", "only of the run with this `ID`")
	flags.StringVar(&l.query.UserID, "user", "", "only of the user with this `ID`")
	flags.StringVar(&l.query.Type, "type", "", "only of this `KIND`: image, audio, video, document, or a word of your own")
	flags.StringVar(&l.query.MimeType, "mime", "", "only MIME types that begin with `PREFIX`: image/, image/png")
	flags.StringArrayVar(&l.labels, "label", nil, "only with this label, `KEY=VALUE`; may be given again for more labels")
	flags.StringVar(&l.digest, "sha256", "", "only bytes with this `DIGEST`")
	flags.StringVar(&l.createdFrom, "created-from", "", "only created at this `TIME` or later")
	flags.StringVar(&l.createdTo, "created-to", "", "only created before this `TIME`")
	flags.StringVar(&l.addedFrom, "added-from", "", "only stored at this `TIME` or later")
	flags.StringVar(&l.addedTo, "added-to", "", "only stored before this `TIME`")
	flags.StringVar(&l.expiresAfter, "expires-after", "", "only what expires at this `TIME` or later; 36h is from now on")
	flags.StringVar(&l.expiresBefore, "expires-before", "", "only what expires before this `TIME`; 0s is what is over")
	flags.BoolVar(&l.query.NeverExpires, "never-expires", false, "only what is kept for ever")
	flags.StringVar(&l.query.Policy, "policy", "", "only with the retention `POLICY` of this name")
	flags.StringVar(&l.minSize, "min-size", "", "only of this `SIZE` or more: 1000, 10kB, 4MiB")
	flags.StringVar(&l.maxSize, "max-size", "", "only of this `SIZE` or less")
}

func (l *ls) run(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := l.checkFilters(); err != nil {
		return err
	}
	return l.app.withExisting(ctx, func(store *engine.FileStore) error {
		listed, err := l.listing.run(ctx, store)
		if err == nil && listed == 0 && !l.app.asJSON {
			l.app.note("nothing is stored here that matches")
		}
		return err
	})
}

// checkFilters reads the flags of addFilters that are not texts.
func (l *ls) checkFilters() (err error) {
	if l.query.Labels, err = parseLabels(l.labels); err != nil {
		return err
	}
	if l.digest != "" {
		if l.query.Digest, err = storage.ParseDigest(l.digest); err != nil || l.query.Digest.IsZero() {
			return usagef("--sha256 %.80q: want 64 hexadecimal digits", l.digest)
		}
	}
	for _, f := range [...]struct {
		flag, text string
		into       *time.Time
	}{
		{"created-from", l.createdFrom, &l.query.CreatedFrom}, {"created-to", l.createdTo, &l.query.CreatedTo},
		{"added-from", l.addedFrom, &l.query.AddedFrom}, {"added-to", l.addedTo, &l.query.AddedTo},
	} {
		if f.text == "" {
			continue
		}
		if *f.into, err = parseTime(f.flag, f.text); err != nil {
			return err
		}
	}
	if err := l.checkExpiry(); err != nil {
		return err
	}
	if l.minSize != "" {
		if l.query.SizeFrom, err = parseSize("min-size", l.minSize); err != nil {
			return err
		}
	}
	if l.maxSize != "" {
		most, err := parseSize("max-size", l.maxSize)
		if err != nil {
			return err
		}
		if l.query.SizeFrom > most {
			return usagef("--min-size %s is more than --max-size %s", l.minSize, l.maxSize)
		}
		l.query.SizeTo = most + 1
	}
	return nil
}

// checkExpiry reads the flags about expiry.
func (l *ls) checkExpiry() (err error) {
	for _, f := range [...]struct {
		flag, text string
		into       *time.Time
	}{{"expires-after", l.expiresAfter, &l.query.ExpiresFrom}, {"expires-before", l.expiresBefore, &l.query.ExpiresTo}} {
		if f.text == "" {
			continue
		}
		if *f.into, err = parseExpiry(f.flag, f.text); err != nil {
			return err
		}
	}
	if l.query.NeverExpires && (l.expiresAfter != "" || l.expiresBefore != "" || l.query.Order == engine.Soonest) {
		return usagef("--never-expires excludes --expires-after, --expires-before and --sort expiry")
	}
	return nil
}
