package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/mediabolt/mediabolt/engine"
)

// writeJSON writes v as one line of JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printJSON prints v as one line of JSON.
func (a *app) printJSON(v any) error { return writeJSON(a.stdout, v) }

// tableRows is how many rows of a table are laid out together.
const tableRows = 256

// table prints rows whose columns line up. Cells are made safe to show on a
// terminal.
type table struct {
	w    *tabwriter.Writer
	rows int
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (t *table) row(cells ...string) error {
	for i, cell := range cells {
		end := "\t"
		if i == len(cells)-1 {
			end = "\n"
		}
		if _, err := io.WriteString(t.w, plain(cell)+end); err != nil {
			return err
		}
	}
	if t.rows++; t.rows%tableRows == 0 {
		return t.w.Flush()
	}
	return nil
}

func (t *table) end() error { return t.w.Flush() }

// plain is s with everything escaped that a terminal might act upon.
func plain(s string) string {
	safe := utf8.ValidString(s)
	for _, r := range s {
		safe = safe && unicode.IsPrint(r)
	}
	if safe {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// clip is s cut to at most n characters.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// size is a number of bytes for people, eight characters wide.
func size(bytes int64) string { return fmt.Sprintf("%8s", humanBytes(bytes)) }

func humanBytes(bytes int64) string { return humanize.Bytes(uint64(max(bytes, 0))) }

// counted is a number of things for people.
func counted(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// moment is a time for people.
func moment(t time.Time) string {
	return t.Local().Format("2006-01-02 15:04:05 -0700") + " (" + humanize.Time(t) + ")"
}

// entryRecord is a reference in JSON. Every field is always there.
type entryRecord struct {
	ID             string            `json:"id"`
	Type           string            `json:"type"`
	MimeType       string            `json:"mime_type"`
	Size           int64             `json:"size"` // bytes
	SHA256         string            `json:"sha256"`
	Path           string            `json:"path"` // relative to the store
	Organization   string            `json:"organization"`
	References     int64             `json:"references"` // that share the bytes
	SessionID      string            `json:"session_id"`
	ConversationID string            `json:"conversation_id"`
	RunID          string            `json:"run_id"`
	UserID         string            `json:"user_id"`
	MessageIndex   int               `json:"message_index"`
	ContentIndex   int               `json:"content_index"`
	Labels         map[string]string `json:"labels"`
	CreatedAt      time.Time         `json:"created_at"`
	AddedAt        time.Time         `json:"added_at"`    // of the reference
	StoredAt       time.Time         `json:"stored_at"`   // of the bytes
	AccessedAt     *time.Time        `json:"accessed_at"` // null: never read
	PolicyName     string            `json:"policy_name"` // empty: none
	ExpiresAt      *time.Time        `json:"expires_at"`  // null: never
	Count          int64             `json:"count"`       // deletions that end it
}

func recordOf(e *engine.Entry) entryRecord {
	r := entryRecord{
		ID: e.Reference.ID, Type: e.Type, MimeType: e.MimeType, Size: e.Size, SHA256: e.Digest.String(),
		Path: e.Path, Organization: e.Reference.Metadata["org"], References: e.Refs,
		SessionID: e.Metadata.SessionID, ConversationID: e.Metadata.ConversationID,
		RunID: e.Metadata.RunID, UserID: e.Metadata.UserID,
		MessageIndex: e.Metadata.MessageIndex, ContentIndex: e.Metadata.ContentIndex,
		Labels: e.Metadata.Labels, CreatedAt: e.Metadata.CreatedAt, AddedAt: e.AddedAt, StoredAt: e.StoredAt,
		AccessedAt: orNull(e.AccessedAt), PolicyName: e.Metadata.Policy, ExpiresAt: orNull(e.ExpiresAt), Count: e.Count,
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	return r
}

// orNull is a time in JSON.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
