package main

import (
	"bufio"
	"context"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// ls is one run of the command ls.
type ls struct {
	app   *app
	query engine.Query
	limit int
}

func (a *app) lsCommand() *cobra.Command {
	l := &ls{app: a}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is stored, oldest first",
		Long: `List what is stored, oldest first, as a table or with --json as JSON Lines that
hold everything 'mediabolt stat' shows. Several filters narrow together; long IDs
and names are cut in the table and whole in JSON.`,
		Example: `  mediabolt ls
  mediabolt ls --session s1 --limit 20
  mediabolt ls --user u1 --json | jq -r .id`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return l.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&l.query.SessionID, "session", "", "only of the session with this `ID`")
	flags.StringVar(&l.query.ConversationID, "conversation", "", "only of the conversation with this `ID`")
	flags.StringVar(&l.query.RunID, "run", "", "only of the run with this `ID`")
	flags.StringVar(&l.query.UserID, "user", "", "only of the user with this `ID`")
	flags.IntVarP(&l.limit, "limit", "n", 0, "at most `N`; 0 lists all")
	return cmd
}

func (l *ls) run(ctx context.Context) error {
	if l.limit < 0 {
		return usagef("--limit %d is negative", l.limit)
	}
	return l.app.withExisting(ctx, func(store *engine.FileStore) error {
		out := bufio.NewWriter(l.app.stdout)
		if err := l.list(ctx, store, out); err != nil {
			return err
		}
		return out.Flush()
	})
}

func (l *ls) list(ctx context.Context, store *engine.FileStore, out *bufio.Writer) error {
	t := newTable(out)
	listed := 0
	for entry, err := range store.List(ctx, l.query) {
		if err == nil && listed == 0 && !l.app.asJSON {
			err = t.row("ID", "TYPE", "MIME TYPE", "    SIZE", "SESSION", "CONVERSATION", "CREATED", "NAME")
		}
		if err == nil {
			err = l.print(t, out, &entry)
		}
		if err != nil {
			return err
		}
		if listed++; listed == l.limit {
			break
		}
	}
	if listed == 0 && !l.app.asJSON {
		l.app.note("nothing is stored here that matches")
	}
	return t.end()
}

func (l *ls) print(t *table, out *bufio.Writer, e *engine.Entry) error {
	if l.app.asJSON {
		return writeJSON(out, recordOf(e))
	}
	return t.row(e.Reference.ID, clip(e.Type, 16), clip(e.MimeType, 32), size(e.Size),
		orDash(clip(e.Metadata.SessionID, 24)), orDash(clip(e.Metadata.ConversationID, 24)),
		humanize.Time(e.Metadata.CreatedAt), orDash(clip(e.Metadata.Labels[fileNameLabel], 40)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
