package adopt

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/gabriel-vasile/mimetype"

	"github.com/mediabolt/mediabolt/storage"
)

// checked reads a file and hashes what it reads. Where the end is not what was
// expected, it fails in place of the end, so that nothing is kept of it.
type checked struct {
	c    *candidate
	f    *os.File
	info fs.FileInfo // at the opening
	told func(int64)

	hash   hash.Hash
	head   []byte // for sniffing
	n      int64
	failed error // a *reason, or an error of the file
}

// sniffed is how many bytes of a file tell its type.
const sniffed = 3072

// openChecked opens the file of a candidate. Its errors are why it is left.
func (t *taker) openChecked(c *candidate, told func(int64)) (*checked, error) {
	f, info, err := t.src.open(c.path)
	if err != nil {
		return nil, err
	}
	in := &checked{c: c, f: f, info: info, told: told, hash: sha256.New()}
	if c.size >= 0 && info.Size() != c.size {
		in.close()
		return nil, &reason{OddSize, fmt.Sprintf("%d bytes, the index says %d", info.Size(), c.size)}
	}
	return in, nil
}

func (in *checked) close() { _ = in.f.Close() } // was only read

func (in *checked) Read(p []byte) (int, error) {
	if in.failed != nil {
		return 0, in.failed
	}
	n, err := in.f.Read(p)
	_, _ = in.hash.Write(p[:n]) // is documented to never fail
	in.n += int64(n)
	if missing := sniffed - len(in.head); missing > 0 {
		in.head = append(in.head, p[:min(n, missing)]...)
	}
	in.told(int64(n))
	if err == io.EOF {
		if in.failed = in.judge(); in.failed != nil {
			return n, in.failed
		}
	} else if err != nil {
		in.failed = err
	}
	return n, err
}

// judge is why the whole of a file is not what it should be.
func (in *checked) judge() error {
	now, err := in.f.Stat()
	switch {
	case err != nil:
		return err
	case in.n != in.info.Size() || now.Size() != in.info.Size() || !now.ModTime().Equal(in.info.ModTime()):
		return &reason{OddChanged, "changed while it was read"}
	case !in.c.digest.IsZero() && in.sum() != in.c.digest:
		return &reason{OddHash, fmt.Sprintf("SHA-256 %s, the old store says %s", in.sum(), in.c.digest)}
	}
	return nil
}

func (in *checked) sum() (d storage.Digest) {
	in.hash.Sum(d[:0])
	return d
}

// drain reads to the end.
func (in *checked) drain(ctx context.Context) error {
	buffer := make([]byte, 1<<16)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := in.Read(buffer); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// looksLike is the type that the bytes have where it cannot be the declared one.
// It speaks only where both are clear: of what is declared as image, audio or video,
// and looks like an image, text, a PDF or an archive.
func (in *checked) looksLike(declared string) string {
	major := func(mimeType string) string {
		m, _, _ := strings.Cut(mimeType, "/")
		return strings.ToLower(m)
	}
	want := major(declared)
	if want != "image" && want != "audio" && want != "video" || strings.Contains(strings.ToLower(declared), "svg") {
		return ""
	}
	found := mimetype.Detect(in.head)
	got := major(found.String())
	clear := got == "image" || got == "text" && utf8.Valid(in.head[:min(len(in.head), 512)]) || found.Is("application/pdf") || found.Is("application/zip")
	if len(in.head) == 0 || !clear || got == want {
		return ""
	}
	return found.String()
}
