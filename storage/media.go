package storage

import (
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// MediaContent is a piece of media on its way in or out. Exactly one of Data
// and FilePath is set on the way in; Retrieve sets Data.
type MediaContent struct {
	// Type is the kind of media: "image", "audio", "video", "document" or a
	// word of the application's own. Empty: taken from the MIME type.
	Type string `json:"type"`
	// MimeType is the media type (RFC 2046). Empty: sniffed from the bytes.
	MimeType string `json:"mime_type"`
	// Data is the bytes in base64 (RFC 4648, standard or URL-safe alphabet,
	// padded or not, line breaks ignored) or a whole data: URL (RFC 2397).
	Data string `json:"data,omitempty"`
	// FilePath names an existing regular file, absolute or relative to the
	// process's working directory, that is streamed in.
	FilePath string `json:"file_path,omitempty"`
}

// MediaInfo describes bytes that come as a stream; both fields as in
// MediaContent.
type MediaInfo struct {
	Type     string
	MimeType string
}

// Bounds of what a reference may carry. Lengths are in bytes of UTF-8.
const (
	MaxIDLength         = 1024  // each of ConversationID, SessionID, RunID, UserID
	MaxTypeLength       = 64    // MediaContent.Type
	MaxMimeTypeLength   = 255   // MediaContent.MimeType
	MaxLabels           = 64    // entries in Labels
	MaxLabelKeyLength   = 128   // one label's key
	MaxLabelValueLength = 4096  // one label's value
	MaxLabelsLength     = 16384 // all keys and values together
)

// Validate answers ErrInvalidMedia, naming the field, for a type or MIME type
// that is over its bound or holds control characters.
func (i MediaInfo) Validate() error {
	if err := checkText("type", i.Type, MaxTypeLength); err != nil {
		return err
	}
	return checkText("MIME type", i.MimeType, MaxMimeTypeLength)
}

// MediaMetadata says where in an application a piece of media belongs. Every
// field may be left empty.
type MediaMetadata struct {
	ConversationID string `json:"conversation_id,omitempty"`
	SessionID      string `json:"session_id,omitempty"`
	RunID          string `json:"run_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
	MessageIndex   int    `json:"message_index"`
	ContentIndex   int    `json:"content_index"`
	// CreatedAt is kept to the microsecond; zero means the time of the Store.
	CreatedAt time.Time `json:"created_at"`
	// Policy is the name of the rule that says how long the media is kept. Empty: that
	// of the store, which a Store fills in.
	Policy string `json:"policy_name,omitempty"`
	// Labels are the application's own: file name, model, prompt hash.
	Labels map[string]string `json:"labels,omitempty"`
}

// Validate answers ErrInvalidMedia, naming the field, for anything over its
// bound or not valid UTF-8, and for a year outside 1 to 9999 in UTC.
func (m *MediaMetadata) Validate() error {
	ids := [...]struct{ field, id string }{
		{"conversation ID", m.ConversationID}, {"session ID", m.SessionID},
		{"run ID", m.RunID}, {"user ID", m.UserID},
	}
	for _, id := range ids {
		if err := checkLength(id.field, id.id, MaxIDLength); err != nil {
			return err
		}
	}
	if y := m.CreatedAt.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("%w: created at %v: year outside 1 to 9999 in UTC", ErrInvalidMedia, m.CreatedAt)
	}
	return m.validateLabels()
}

func (m *MediaMetadata) validateLabels() error {
	if len(m.Labels) > MaxLabels {
		return fmt.Errorf("%w: %d labels: at most %d are kept", ErrInvalidMedia, len(m.Labels), MaxLabels)
	}
	total := 0
	for k, v := range m.Labels {
		if k == "" {
			return fmt.Errorf("%w: a label without a key", ErrInvalidMedia)
		}
		if err := checkLength("label key", k, MaxLabelKeyLength); err != nil {
			return err
		}
		if err := checkLength("label "+k, v, MaxLabelValueLength); err != nil {
			return err
		}
		total += len(k) + len(v)
	}
	if total > MaxLabelsLength {
		return fmt.Errorf("%w: labels of %d bytes: at most %d in all", ErrInvalidMedia, total, MaxLabelsLength)
	}
	return nil
}

func checkLength(field, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s %.40q…: %d bytes, at most %d are kept", ErrInvalidMedia, field, s, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s %q: not valid UTF-8", ErrInvalidMedia, field, s)
	}
	return nil
}

func checkText(field, s string, limit int) error {
	if err := checkLength(field, s, limit); err != nil {
		return err
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: %s %q: holds a control character", ErrInvalidMedia, field, s)
		}
	}
	return nil
}
