package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// listing is one run of a command that lists references: ls, find, refs.
type listing struct {
	app    *app
	query  engine.Query
	order  string
	cursor string
	format string
}

// Formats of a listing.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// addFlags adds the flags that say which part of a list is shown, and how.
func (l *listing) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&l.order, "sort", string(engine.Oldest), "`ORDER` in which they were stored: oldest or newest first")
	flags.IntVarP(&l.query.Limit, "limit", "n", 0, "at most `N`; 0 lists all")
	flags.StringVar(&l.cursor, "cursor", "", "go on at the `CURSOR` that a list with --limit gave")
	addFormat(cmd, &l.format)
	completeFlag(cmd, "sort", string(engine.Oldest), string(engine.Newest))
}

// addFormat adds the flag that says how a list is printed; see chooseFormat.
func addFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "format", "", "`FORMAT`: table (default), json, which is the same as --json, or csv")
	completeFlag(cmd, "format", formatTable, formatJSON, formatCSV)
}

// completeFlag has the shell complete a flag's values.
func completeFlag(cmd *cobra.Command, flag string, choices ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // callers name flags that they have added
	}
}

// chooseFormat is the format that --format and --json ask for.
func (a *app) chooseFormat(format string) (string, error) {
	switch {
	case format == "" && a.asJSON, format == formatJSON:
		a.asJSON = true
		return formatJSON, nil
	case format == "":
		return formatTable, nil
	case format != formatTable && format != formatCSV:
		return "", usagef("--format %q: want table, json or csv", format)
	case a.asJSON:
		return "", usagef("--json and --format %s exclude each other", format)
	}
	return format, nil
}

// check judges the flags of addFlags before anything is opened.
func (l *listing) check() (err error) {
	switch l.query.Order = engine.Order(l.order); l.query.Order {
	case engine.Oldest, engine.Newest:
	default:
		return usagef("--sort %q: want oldest or newest", l.order)
	}
	if l.query.Limit < 0 {
		return usagef("--limit %d is negative", l.query.Limit)
	}
	l.query.Cursor = engine.Cursor(l.cursor)
	l.format, err = l.app.chooseFormat(l.format)
	return err
}

// run prints what the query lists, and how to go on where the limit ended it. It
// answers how many that were.
func (l *listing) run(ctx context.Context, store *engine.FileStore) (listed int, err error) {
	out := bufio.NewWriter(l.app.stdout)
	listed, more, err := l.print(out, store.List(ctx, l.ahead()))
	if err == nil {
		err = out.Flush()
	}
	if err == nil && more != "" {
		l.app.tellMore(string(more))
	}
	return listed, err
}

// ahead is the query with a limit of one more, which tells whether there is more.
func (l *listing) ahead() engine.Query {
	q := l.query
	if q.Limit > 0 && q.Limit < math.MaxInt {
		q.Limit++
	}
	return q
}

// print prints entries up to the limit, and answers the cursor behind them if there
// are more.
func (l *listing) print(out *bufio.Writer, entries iter.Seq2[engine.Entry, error]) (listed int, more engine.Cursor, err error) {
	var w entryWriter
	switch l.format {
	case formatJSON:
		w = &jsonWriter{out, &l.query}
	case formatCSV:
		w = &csvWriter{w: csv.NewWriter(out)}
	default:
		w = &tableWriter{newTable(out)}
	}
	behind := engine.Cursor("")
	for entry, err := range entries {
		if err != nil {
			return listed, "", err
		}
		if listed == l.query.Limit && l.query.Limit > 0 {
			return listed, behind, w.end()
		}
		if listed == 0 {
			if err := w.begin(); err != nil {
				return listed, "", err
			}
		}
		if err := w.entry(&entry); err != nil {
			return listed, "", err
		}
		listed++
		behind = l.query.After(&entry)
	}
	return listed, "", w.end()
}

// entryWriter writes entries in one format.
type entryWriter interface {
	begin() error // before the first of some
	entry(e *engine.Entry) error
	end() error
}

type tableWriter struct{ t *table }

func (w *tableWriter) begin() error {
	return w.t.row("ID", "TYPE", "MIME TYPE", "    SIZE", "SESSION", "CONVERSATION", "CREATED", "NAME")
}

func (w *tableWriter) entry(e *engine.Entry) error {
	return w.t.row(e.Reference.ID, clip(e.Type, 16), clip(e.MimeType, 32), size(e.Size),
		orDash(clip(e.Metadata.SessionID, 24)), orDash(clip(e.Metadata.ConversationID, 24)),
		humanize.Time(e.Metadata.CreatedAt), orDash(clip(e.Metadata.Labels[fileNameLabel], 40)))
}

func (w *tableWriter) end() error { return w.t.end() }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// listRecord is an entry of a list in JSON.
type listRecord struct {
	entryRecord
	Cursor engine.Cursor `json:"cursor"` // --cursor goes on behind it
}

type jsonWriter struct {
	out   *bufio.Writer
	query *engine.Query
}

func (w *jsonWriter) begin() error { return nil }
func (w *jsonWriter) end() error   { return nil }

func (w *jsonWriter) entry(e *engine.Entry) error {
	return writeJSON(w.out, listRecord{recordOf(e), w.query.After(e)})
}

// csvWriter writes RFC 4180, names in the first record: the fields of entryRecord,
// labels as an object of JSON.
type csvWriter struct {
	w     *csv.Writer
	named bool
}

func (w *csvWriter) begin() error {
	w.named = true
	return w.w.Write([]string{
		"id", "type", "mime_type", "size", "sha256", "path", "organization", "references",
		"session_id", "conversation_id", "run_id", "user_id", "message_index", "content_index", "labels",
		"created_at", "added_at", "stored_at", "accessed_at",
	})
}

func (w *csvWriter) entry(e *engine.Entry) error {
	r := recordOf(e)
	labels, err := json.Marshal(r.Labels)
	if err != nil {
		return err
	}
	accessed := ""
	if r.AccessedAt != nil {
		accessed = r.AccessedAt.Format(time.RFC3339Nano)
	}
	return w.w.Write([]string{
		r.ID, r.Type, r.MimeType, strconv.FormatInt(r.Size, 10), r.SHA256, r.Path, r.Organization, strconv.FormatInt(r.References, 10),
		r.SessionID, r.ConversationID, r.RunID, r.UserID, strconv.Itoa(r.MessageIndex), strconv.Itoa(r.ContentIndex), string(labels),
		r.CreatedAt.Format(time.RFC3339Nano), r.AddedAt.Format(time.RFC3339Nano), r.StoredAt.Format(time.RFC3339Nano), accessed,
	})
}

func (w *csvWriter) end() error {
	if !w.named {
		if err := w.begin(); err != nil {
			return err
		}
	}
	w.w.Flush()
	return w.w.Error()
}

// moreRecord tells in JSON that a list goes on.
type moreRecord struct {
	Note   string `json:"note"`
	Cursor string `json:"cursor"`
}

// tellMore tells that a list goes on behind a cursor.
func (a *app) tellMore(cursor string) {
	if a.asJSON {
		_ = writeJSON(a.stderr, moreRecord{"there is more", cursor}) // as note
		return
	}
	a.note("there is more: --cursor %s", cursor)
}

// parseTime reads a time of a flag: RFC 3339, a day or a minute in local time, or a
// duration that it is ago.
func parseTime(flag, text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	for _, layout := range [...]string{time.RFC3339Nano, time.DateOnly, "2006-01-02T15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--%s %q: want a time such as 2026-03-01, 2026-03-01T12:30 or 2026-03-01T12:30:00Z, or how long ago, such as 36h", flag, text)
}

// parseSize reads a number of bytes of a flag: 1000, 10kB, 4MiB.
func parseSize(flag, text string) (int64, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n >= 1<<62 || strings.HasPrefix(text, "-") {
		return 0, usagef("--%s %q: want a number of bytes, such as 1000, 10kB or 4MiB", flag, text)
	}
	return int64(n), nil
}
