package blobs

import "os"

// earlyStep is after how many bytes of a stream the disk is told to begin with
// them.
const earlyStep = 1 << 20

// earlyWriter writes a stream to its file and has the disk begin with what there
// is while the rest still comes and is hashed, so that the sync in the end finds
// little left to do. It is a hint: that sync alone makes durable, and tells of an
// error of what was begun early too.
type earlyWriter struct {
	file  *os.File
	end   int64 // of what was written
	begun int64 // the end of what the disk was told of
}

func (w *earlyWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.end += int64(n)
	if w.end-w.begun >= earlyStep {
		beginWriting(w.file, w.begun, w.end-w.begun)
		w.begun = w.end
	}
	return n, err
}
