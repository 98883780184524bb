package blobs

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// needsRoom is a stream of pieces of which each comes only once the one before has been
// written.
type needsRoom struct {
	pieces [][]byte
	room   chan struct{}
}

func (s *needsRoom) Next([]byte) ([]byte, error) {
	<-s.room
	if len(s.pieces) == 0 {
		return nil, io.EOF
	}
	piece := s.pieces[0]
	s.pieces = s.pieces[1:]
	return piece, nil
}

func (s *needsRoom) Written(int) { s.room <- struct{}{} }

// A piece counts as written while the next is waited for.
func TestCopyAheadTells(t *testing.T) {
	s := &needsRoom{pieces: [][]byte{[]byte("one"), []byte("two"), []byte("three")}, room: make(chan struct{}, 1)}
	s.room <- struct{}{}
	var got bytes.Buffer
	require.NoError(t, copyAhead(&got, s.Next, s.Written))
	require.Equal(t, "onetwothree", got.String())
}

// failingWriter fails with its second piece.
type failingWriter struct{ left int }

var errWriter = errors.New("no more")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, errWriter
	}
	return len(p), nil
}

// What could not be written is not told of, and ends the copy; so does an error of the
// stream, after what came before it was written.
func TestCopyAheadFails(t *testing.T) {
	told := 0
	tell := func(n int) { told += n }
	next := func(r io.Reader) func([]byte) ([]byte, error) {
		return func(buf []byte) ([]byte, error) { return Next(r, buf) }
	}
	stream := bytes.NewReader(make([]byte, 5*spoolBuffer))
	require.ErrorIs(t, copyAhead(&failingWriter{1}, next(stream), tell), errWriter)
	require.Equal(t, spoolBuffer, told)

	broken := errors.New("broken")
	var got bytes.Buffer
	err := copyAhead(&got, next(io.MultiReader(bytes.NewReader([]byte("some")), errorReader{broken})), tell)
	require.ErrorIs(t, err, broken)
	require.Equal(t, "some", got.String())
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
