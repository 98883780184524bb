package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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
