package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func TestFileNameOfLabel(t *testing.T) {
	for label, want := range map[string]string{
		"photo.png":              "photo.png",
		"日の出.png":                "日の出.png",
		"":                       "",
		".":                      "",
		"..":                     "",
		"a/b/../c.png":           "c.png",
		"../../etc/passwd":       "passwd",
		`..\..\boot.ini`:         "boot.ini",
		"dir/":                   "",
		".bashrc":                "_bashrc",
		"-rf":                    "_rf",
		"a\x00b\nc":              "a_b_c",
		"\x1b]0;title\x07.png":   "_]0;title_.png",
		"a:b*c?.png":             "a_b_c_.png",
		"trailing. . ":           "trailing",
		strings.Repeat("x", 200): strings.Repeat("x", 200),
		strings.Repeat("x", 201): "",
	} {
		require.Equal(t, want, fileName(label), "%q", label)
	}
}

func TestOutcomes(t *testing.T) {
	cases := []struct {
		err  error
		code string
		exit int
	}{
		{storage.ErrNoStore, "no_store", 10},
		{storage.ErrLocked, "locked", 11},
		{storage.ErrCorrupted, "corrupted", 12},
		{fmt.Errorf("%w: %w", storage.ErrRefused, storage.ErrPermission), "refused", 1},
		{fmt.Errorf("%w: %w", storage.ErrCorrupted, storage.ErrNotFound), "corrupted", 12},
		{storage.ErrNotFound, "not_found", 13},
		{storage.ErrInvalidRef, "invalid_id", 1},
		{storage.ErrInvalidMedia, "invalid_media", 1},
		{storage.ErrConflict, "conflict", 1},
		{storage.ErrDiskSpace, "disk_space", 1},
		{storage.ErrPermission, "permission", 1},
		{fs.ErrNotExist, "no_such_file", 1},
		{usagef("wrong"), "usage", 1},
		{errors.New("other"), "failed", 1},
	}
	for _, c := range cases {
		out := outcomeOf(fmt.Errorf("context: %w", c.err))
		require.Equal(t, c.code, out.code, "%v", c.err)
		require.Equal(t, c.exit, out.exit, "%v", c.err)
	}
}

func TestExplained(t *testing.T) {
	at := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	entry := func(id string, expires time.Time) engine.Entry {
		return engine.Entry{Reference: storage.StorageReference{ID: id}, ExpiresAt: expires}
	}
	other := entry("other", at)
	hold := engine.Hold{Name: "court", Target: engine.HoldTarget{Kind: engine.HoldSession, ID: "s1"}, Reason: "case 7", At: at}
	says := func(x engine.Explanation) string { return fmt.Sprint(explained(&x)) }

	text := says(engine.Explanation{Entry: entry("one", at), Due: true, Holds: []engine.Hold{hold}, Deletion: engine.DeletionRefused})
	require.Contains(t, text, "a hold keeps it")
	require.Contains(t, text, `"court" on session "s1" since`)
	require.Contains(t, text, ": case 7")
	require.Contains(t, text, "as long as they are held")
	require.Contains(t, text, "is refused because of the hold")
	text = says(engine.Explanation{Entry: entry("one", at), Others: 2, Longest: &other, LongestHeld: true, Deletion: engine.DeletionKeepsBytes})
	require.Contains(t, text, "the bytes with 2 other references; other is held and keeps them")
	require.Contains(t, text, "as long as they are held")
	require.NotContains(t, text, "its time is over")
	text = says(engine.Explanation{Entry: entry("one", time.Time{}), Deletion: engine.DeletionCounts})
	require.Contains(t, text, "none, which keeps for ever")
	require.Contains(t, text, "the bytes with no other reference")
	require.Contains(t, text, "takes one from its count")
}

func TestCombine(t *testing.T) {
	notFound := outcome{code: "not_found", exit: exitNotFound}
	damaged := outcome{code: "corrupted", exit: exitDamage}
	require.Equal(t, exitSome, combine([]outcome{notFound}, 2).exit)
	require.Equal(t, exitNotFound, combine([]outcome{notFound, notFound}, 2).exit)
	require.Equal(t, exitFailure, combine([]outcome{notFound, damaged}, 2).exit)
}

func TestPlain(t *testing.T) {
	require.Equal(t, "日の出 – ok", plain("日の出 – ok"))
	require.Equal(t, `\x1b[2Jgone\n`, plain("\x1b[2Jgone\n"))
	require.Equal(t, `a\xffb`, plain("a\xffb"))
}

func TestClip(t *testing.T) {
	require.Equal(t, "日の出", clip("日の出", 3))
	require.Equal(t, "日…", clip("日の出", 2))
}

func TestOneLine(t *testing.T) {
	require.Equal(t, "a; b; c", oneLine("a\n\n\tb\nc\n"))
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 30 * 24 * time.Hour, "0d": 0, "36h": 36 * time.Hour, "0s": 0, "90m": 90 * time.Minute} {
		got, err := parseAge("older-than", text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "d", "30", "-1d", "-1h", "30days", "1d2h", "999999999999d"} {
		_, err := parseAge("older-than", text)
		require.ErrorContains(t, err, "--older-than", "%q", text)
	}
}
