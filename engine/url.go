package engine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mediabolt/mediabolt/storage"
)

// URL is the file URL (RFC 8089) of the blob of a reference, for programs on this
// machine that may read the store's files. What they read is not verified, and is
// not to be written to. The URL is good until the last reference to the blob is
// deleted, or Erase or Reorganize gives the blob another path: the same bytes stored
// again have another one, and the same path never has other bytes. Errors: ErrInvalidRef, ErrNotFound for a reference that is not
// there, ErrCorrupted when its file is not there or has another size, ErrPermission,
// ErrIO, ErrClosed, or ctx's.
func (f *FileStore) URL(ctx context.Context, ref *storage.StorageReference) (string, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	path, err := s.path(ctx, ref)
	if errors.Is(err, storage.ErrCorrupted) {
		// It may have got another one between the look at its row and at its file.
		path, err = s.path(ctx, ref)
	}
	if err != nil {
		return "", fmt.Errorf("URL in %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return fileURL(filepath.Join(s.cfg.BaseDir, filepath.FromSlash(path)), runtime.GOOS == "windows"), nil
}

// path is where the file of a reference is, which has its size.
func (s *store) path(ctx context.Context, ref *storage.StorageReference) (string, error) {
	id, err := parseRef(ref)
	if err != nil {
		return "", err
	}
	_, blob, err := s.index.Ref(ctx, id)
	if err != nil {
		return "", fmt.Errorf("reference %s: %w", id, err)
	}
	size, err := s.blobs.Size(ctx, blob.Path)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return "", fmt.Errorf("reference %s: %w: %w", id, storage.ErrCorrupted, err)
	case err != nil:
		return "", fmt.Errorf("reference %s: %w", id, err)
	case size != blob.Size:
		return "", fmt.Errorf("reference %s: %w: file %s has %d bytes, its row says %d", id, storage.ErrCorrupted, blob.Path, size, blob.Size)
	}
	return blob.Path, nil
}

// fileURL is the URL of a file with an absolute path, as the system spells it.
// On Windows a drive becomes the first element of the URL's path, the host of a
// network share its host.
func fileURL(path string, windows bool) string {
	u := url.URL{Scheme: "file", Path: path}
	if !windows {
		return u.String()
	}
	u.Path = strings.ReplaceAll(path, `\`, "/")
	u.Path = strings.TrimPrefix(u.Path, "//?/") // of a path without the limit on its length
	if share, ok := strings.CutPrefix(u.Path, "UNC/"); ok {
		u.Path = "//" + share
	}
	if share, ok := strings.CutPrefix(u.Path, "//"); ok {
		host, rest, _ := strings.Cut(share, "/")
		u.Host, u.Path = host, "/"+rest
	} else {
		u.Path = "/" + u.Path
	}
	return u.String()
}
