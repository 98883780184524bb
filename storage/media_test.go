package storage_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// labels are count labels of keys and values of that many bytes.
func labels(count, key, value int) map[string]string {
	m := make(map[string]string, count)
	for i := range count {
		m[fmt.Sprintf("%0*d", key, i)] = strings.Repeat("v", value)
	}
	return m
}

func TestMetadataBounds(t *testing.T) {
	id := func(n int) string { return strings.Repeat("x", n) }
	for what, c := range map[string]struct {
		m  storage.MediaMetadata
		ok bool
		// named is what the error says about where
		named string
	}{
		"nothing":                {ok: true},
		"longest IDs":            {m: storage.MediaMetadata{ConversationID: id(1024), SessionID: id(1024), RunID: id(1024), UserID: id(1024)}, ok: true},
		"hostile, but text":      {m: storage.MediaMetadata{ConversationID: "../..", SessionID: "/etc", RunID: "\x00", UserID: "NUL\n"}, ok: true},
		"conversation too long":  {m: storage.MediaMetadata{ConversationID: id(1025)}, named: "conversation ID"},
		"session too long":       {m: storage.MediaMetadata{SessionID: id(10240)}, named: "session ID"},
		"run too long":           {m: storage.MediaMetadata{RunID: id(1025)}, named: "run ID"},
		"user too long":          {m: storage.MediaMetadata{UserID: id(1025)}, named: "user ID"},
		"bytes count, not runes": {m: storage.MediaMetadata{UserID: strings.Repeat("é", 513)}, named: "user ID"},
		"session not UTF-8":      {m: storage.MediaMetadata{SessionID: "a\xff"}, named: "session ID"},
		"user not UTF-8":         {m: storage.MediaMetadata{UserID: "\xed\xa0\x80"}, named: "user ID"},

		"first year":     {m: storage.MediaMetadata{CreatedAt: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)}, ok: true},
		"last year":      {m: storage.MediaMetadata{CreatedAt: time.Date(9999, 12, 31, 23, 59, 59, 999, time.UTC)}, ok: true},
		"year 0":         {m: storage.MediaMetadata{CreatedAt: time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC)}, named: "created at"},
		"year 10000":     {m: storage.MediaMetadata{CreatedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, named: "created at"},
		"10000 in UTC":   {m: storage.MediaMetadata{CreatedAt: time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("west", -3600*2))}, named: "created at"},
		"year 0 in UTC":  {m: storage.MediaMetadata{CreatedAt: time.Date(1, 1, 1, 1, 0, 0, 0, time.FixedZone("east", 3600*2))}, named: "created at"},
		"any index":      {m: storage.MediaMetadata{MessageIndex: -1, ContentIndex: 1 << 30}, ok: true},
		"most labels":    {m: storage.MediaMetadata{Labels: labels(64, 2, 1)}, ok: true},
		"too many":       {m: storage.MediaMetadata{Labels: labels(65, 2, 1)}, named: "65 labels"},
		"longest label":  {m: storage.MediaMetadata{Labels: labels(1, 128, 4096)}, ok: true},
		"empty value":    {m: storage.MediaMetadata{Labels: map[string]string{"k": ""}}, ok: true},
		"no key":         {m: storage.MediaMetadata{Labels: map[string]string{"": "v"}}, named: "without a key"},
		"key too long":   {m: storage.MediaMetadata{Labels: labels(1, 129, 1)}, named: "label key"},
		"value too long": {m: storage.MediaMetadata{Labels: map[string]string{"prompt": strings.Repeat("v", 4097)}}, named: "prompt"},
		"key not UTF-8":  {m: storage.MediaMetadata{Labels: map[string]string{"\xff": ""}}, named: "label key"},
		"not UTF-8":      {m: storage.MediaMetadata{Labels: map[string]string{"file": "\xff"}}, named: "file"},
		"full labels":    {m: storage.MediaMetadata{Labels: labels(4, 96, 4000)}, ok: true},
		"over in all":    {m: storage.MediaMetadata{Labels: labels(4, 97, 4000)}, named: "16388 bytes"},
	} {
		err := c.m.Validate()
		if c.ok {
			require.NoError(t, err, what)
			continue
		}
		require.ErrorIs(t, err, storage.ErrInvalidMedia, what)
		require.ErrorContains(t, err, c.named, what)
		require.Less(t, len(err.Error()), 1000, what)
	}
}

func TestInfoBounds(t *testing.T) {
	for _, info := range []storage.MediaInfo{
		{}, {Type: "image", MimeType: "image/png"}, {Type: "模型", MimeType: `text/plain; charset="utf-8"`},
		{Type: strings.Repeat("t", 64), MimeType: strings.Repeat("m", 255)},
	} {
		require.NoError(t, info.Validate())
	}
	for _, info := range []storage.MediaInfo{
		{Type: strings.Repeat("t", 65)}, {Type: "a\nb"}, {Type: "\x7f"}, {Type: "\x00"}, {Type: "\xff"}, {Type: "\u0085"},
	} {
		require.ErrorIs(t, info.Validate(), storage.ErrInvalidMedia, "%q", info.Type)
		require.ErrorContains(t, info.Validate(), "type")
		info.MimeType, info.Type = info.Type, ""
		if len(info.MimeType) < 65 {
			require.ErrorIs(t, info.Validate(), storage.ErrInvalidMedia, "%q", info.MimeType)
			require.ErrorContains(t, info.Validate(), "MIME type")
		}
	}
	long := storage.MediaInfo{MimeType: strings.Repeat("m", 256)}
	require.ErrorIs(t, long.Validate(), storage.ErrInvalidMedia)
}

func TestOrganizationModes(t *testing.T) {
	for _, m := range storage.OrganizationModes() {
		require.NoError(t, m.Validate())
	}
	require.Equal(t, []storage.OrganizationMode{"flat", "by-conversation", "by-session", "by-run"}, storage.OrganizationModes())
	for _, m := range []storage.OrganizationMode{"", "Flat", "by-user", "by-session ", "../x"} {
		err := m.Validate()
		require.ErrorIs(t, err, storage.ErrInvalidConfig, "%q", m)
	}
}
